"""Every kind of request that an agent may send, in words for its organisation; what is in no row does not leave.

``rule`` names the setting of the agent's local policy that allowed a request; None, where it carries nothing that came
of the private data, so that no rule is needed. ``readable`` is what came of it and is not masked.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import parse_qs

from shared.errors import EgressUnexplained

ROUND = "/v1/runs/{run}/rounds/{round}"
ATTEMPT = f"{ROUND}/attempts/{{attempt}}"


@dataclass(frozen=True)
class Kind:
    """One kind of request; ``says`` has what each parameter of its query tells the other side.

    ``rest`` is a second method: that of a request which goes on where another one broke off.
    """

    name: str
    method: str
    path: str
    words: str
    rule: str | None = None
    readable: bool = False
    rest: str | None = None
    says: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """The path with its variable parts as groups, behind the other side's origin if a proxy needs that."""
        return re.compile(r"(?:https?://[^/]+)?" + re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", self.path))


KINDS: Sequence[Kind] = (
    Kind(
        "question",
        "GET",
        "/v1/wanted",
        "asks whether something is wanted of it",
        says={
            "wait_seconds": "how long it waits for an answer",
            "holding": "which adapter it holds",
            "declined": "which runs it declines and why",
            "instance": "which process of the agent asks",
            "follows": "which of its processes have ended",
        },
    ),
    Kind(
        "leave",
        "POST",
        "/v1/leave",
        "says that it stops, so that no round waits for it",
        says={"instance": "which process of the agent stops"},
    ),
    Kind("manifest", "GET", "/v1/runs/{run}/manifest", "asks what a run expects of it"),
    Kind("card", "GET", f"{ROUND}/card", "asks where an adapter comes from"),
    Kind("adapter", "GET", "/v1/adapters/{digest}", "fetches an adapter"),
    Kind("aggregate", "GET", f"{ROUND}/aggregate", "fetches the mean of a round's updates, to compare it here"),
    Kind("ready", "PUT", f"{ROUND}/ready", "says that its update is trained, and nothing of the update"),
    Kind("keys", "PUT", f"{ATTEMPT}/keys", "sends fresh public keys, made for one attempt"),
    Kind(
        "shares",
        "PUT",
        f"{ATTEMPT}/shares",
        "sends shares of its secret keys, encrypted: each can be read by one other organisation alone",
        "policy.smallest_threshold",
    ),
    Kind(
        "masked",
        "PUT",
        f"{ATTEMPT}/masked",
        "sends its update, and what it has evaluated if the run asks for that, masked: unreadable alone, only the sum "
        "over the organisations of an attempt can be read",
        "policy.smallest_cohort",
        rest="PATCH",
    ),
    Kind("masked-offset", "HEAD", f"{ATTEMPT}/masked", "asks how much of its masked update has come, to send the rest"),
    Kind("consistency", "PUT", f"{ATTEMPT}/consistency", "signs whose masked updates are in the sum"),
    Kind(
        "unmasking",
        "PUT",
        f"{ATTEMPT}/unmasking",
        "gives back shares of the others' masks: with enough of them the sum can be read, and nothing but the sum",
        "policy.smallest_threshold",
    ),
    Kind(
        "update",
        "PUT",
        f"{ROUND}/update",
        "sends its update, readable: the coordinator can read it alone",
        "policy.allow_plaintext",
        readable=True,
        rest="PATCH",
        says={"examples": "how many private examples it has"},
    ),
    Kind("update-offset", "HEAD", f"{ROUND}/update", "asks how much of its update has come, to send the rest"),
    Kind(
        "enrolment",
        "POST",
        "/v1/enrol",
        "enrols: sends its name, its public key with a proof that it has the secret one, and the token of its "
        "invitation",
    ),
    Kind("clock", "GET", "/healthz", "asks what time it is there, for the doctor"),
    Kind("proxy", "CONNECT", "{host}", "asks this organisation's proxy for a way to the coordinator"),
)

# What is in no ledger, because it is no HTTP request of the agent's to its coordinator.
NOT_COVERED: Sequence[str] = (
    (
        "looking up host names (DNS), opening connections, and TLS: handshakes, certificates, and what records add. "
        "With TLS, sizes and digests are of what is inside"
    ),
    (
        "of the doctor, opening a connection and looking at the certificate, which sends no request but, where there "
        "is a proxy, a CONNECT"
    ),
    (
        "downloads by Hugging Face's own client, if `slm` is a hub id and no folder: name a folder, and set "
        "`HF_HUB_OFFLINE=1`"
    ),
    "answers of the status page: keep `status_host` on loopback, or know who may reach it",
    "the log on standard error, if something on this machine passes logs on, and whatever other programs send",
)


def kind_of(method: str, target: str) -> Kind:
    """Return what a request is for.

    Raises:
        EgressUnexplained: no kind has this method and path, or a parameter says what it does not.
    """
    path, _, query = target.partition("?")
    for kind in KINDS:
        if method in {kind.method, kind.rest} and kind.pattern.fullmatch(path):
            if unknown := parse_qs(query, keep_blank_values=True).keys() - kind.says.keys():
                raise EgressUnexplained(_refused(f"{method} {path} says {', '.join(sorted(unknown))}, which"))
            return kind
    raise EgressUnexplained(_refused(f"{method} {path}"))


def parts_of(kind: Kind, target: str) -> Mapping[str, str]:
    """Return run, round and so on of a request of this kind."""
    found = kind.pattern.fullmatch(target.partition("?")[0])
    return found.groupdict() if found else {}


def in_words(kind: Kind, target: str) -> str:
    """Say what a request did, and of which run and round."""
    query = parse_qs(target.partition("?")[2], keep_blank_values=True)
    says = " and ".join(words for name, words in kind.says.items() if name in query)
    parts = parts_of(kind, target)
    where = ", ".join(f"{name} {parts[name]}" for name in ("run", "round", "attempt") if name in parts)
    return f"{kind.words}{'; says ' * bool(says)}{says}{f' ({where})' * bool(where)}"


def _refused(request: str) -> str:
    return (
        f"{request} is in no row of what may leave this machine (services/client_agent/what_leaves.py): it was not "
        "sent; install the release of FedCoLLM that knows it"
    )
