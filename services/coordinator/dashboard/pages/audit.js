// The audit log: who changed what, newest first, and how to see for oneself that nobody has changed it since.

import { get, withQuery } from "../api.js";
import { card, command, digest, empty, facts, pageHead, table, time } from "../components.js";
import { h, put } from "../dom.js";
import { count, written } from "../format.js";
import { fingerprint, hasSha256 } from "../sha256.js";

const A_PAGE = 50;

export async function show(view) {
  const head = await get("/v1/audit/head", view);
  const told = hasSha256() ? await fingerprint(head.key) : null;
  const newest = head.head.seq;
  const last = Math.min(newest, Number(view.query.get("last")) || newest);
  const first = Math.max(1, last - A_PAGE + 1);
  const { entries } = newest ? await get(withQuery("/v1/audit", { after: first - 1, limit: last - first + 1 }), view) : { entries: [] };
  const shown = h("div", {});
  const found = h("p", { class: "small quiet", role: "status" });
  const text = h("input", { id: "text", type: "search", autocomplete: "off", "aria-describedby": "text-help", oninput: () => draw() });
  const rows = entries.reverse().map((entry) => ({ entry, said: JSON.stringify(entry).toLowerCase() }));

  function draw() {
    const asked = text.value.trim().toLowerCase();
    const matching = rows.filter(({ said }) => said.includes(asked)).map(({ entry }) => row(entry));
    put(shown, matching.length ? table("Entries, newest first", COLUMNS, matching)
      : empty(rows.length ? "No entry of this page has that text." : "Nothing has happened yet."));
    put(found, asked ? `${count(matching.length)} of ${count(rows.length)} entries` : "");
  }

  draw();
  view.put(pageHead("Audit log"), h("div", { class: "stack" }, newestEntry(head, told),
    h("section", { class: "card stack", "aria-label": "Entries" },
      h("div", { class: "row" }, h("h2", {}, newest ? `Entries ${count(first)} to ${count(last)}` : "Entries"), pager("Pages of entries, above", first, last, newest)),
      h("div", { class: "field" }, h("label", { for: "text" }, "Show only entries with"), text,
        h("p", { class: "small quiet", id: "text-help" }, "A name, an action, a run: of the entries of this page."), found),
      shown, pager("Pages of entries", first, last, newest))));
}

const COLUMNS = [{ name: "Number" }, { name: "When" }, { name: "Who" }, { name: "What" }, { name: "To what" }, { name: "Details" }];

function row({ seq, at, actor, action, subject, detail }) {
  return [count(seq), time(at), h("span", { class: "nowrap" }, actor), h("code", { class: "nowrap" }, action), h("span", { class: "anywhere" }, subject), details(detail)];
}

function details(detail) {
  const pairs = Object.entries(detail).filter(([, value]) => value !== null && value !== "");
  if (!pairs.length) return "–";
  return h("ul", { class: "plain small" }, pairs.map(([name, value]) =>
    h("li", {}, h("span", { class: "quiet" }, `${name}: `), short(value))));
}

function short(value) {
  const whole = typeof value === "object" ? JSON.stringify(value) : String(value);
  return h(/^(sha256|ed25519):/.test(whole) ? "code" : "span", { class: "anywhere", title: whole }, written(value));
}

function newestEntry({ head, key }, told) {
  return card("Its newest entry",
    facts(["Number", count(head.seq)], ["When", head.seq ? time(head.at) : "–"], ["Hash", digest(head.hash, "hash")],
      ["Signed by", digest(key, "coordinator’s key")],
      told && ["Its fingerprint", h("code", {}, told)]),
    h("p", {}, "Each entry’s hash covers the one before it, and the coordinator signs the newest. Whoever remembers a head sees whether anything before ",
      "it was changed. This page checks nothing, since it comes from the coordinator too; the command does, and remembers what it has seen."),
    command("fedcollm audit verify"));
}

function pager(name, first, last, newest) {
  if (first === 1 && last === newest) return null;
  return h("nav", { class: "row", "aria-label": name },
    last < newest && h("a", { class: "button", href: `#/audit?last=${Math.min(newest, last + A_PAGE)}` }, "Newer"),
    first > 1 && h("a", { class: "button", href: `#/audit?last=${first - 1}` }, "Older"));
}
