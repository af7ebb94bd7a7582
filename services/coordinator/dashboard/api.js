// The one way to the coordinator: its public API, with the token of whoever has signed in.

import { session, signOut, token } from "./session.js";
import { hasSha256, sha256 } from "./sha256.js";

const PROTOCOL = "1";
const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 15000;
const PATIENCE_MS = 20000;
const AWAY = new Set([502, 503, 504]);

const listeners = new Set();
const contact = { isLost: false, heardAt: null };

/** A refusal, as the coordinator's problem document tells it; `faults` are those of single values. */
export class ApiError extends Error {
  constructor({ status, code, detail, faults = [] }) {
    super(detail);
    Object.assign(this, { status, code, detail, faults });
  }
}

/** Nobody answers; what was asked may or may not have been done. */
class Unreachable extends Error {
  detail = "The coordinator does not answer, so that nobody knows whether this was done: look again once it does.";
}

/** The page that asked, or the session, is over: nobody is to be told. */
export class Superseded extends Error {}

/** Call `listener` with `{isLost, heardAt}` whenever the coordinator is lost or found. */
export function onContact(listener) {
  listeners.add(listener);
}

/** Return the JSON at a path of the API. While nobody answers it asks again, until `signal` is aborted. */
export async function get(path, { signal, patience } = {}) {
  return (await persistent(path, { signal, patience })).json();
}

/** Return a file of the API as a Blob. */
export async function getFile(path, { signal } = {}) {
  return (await persistent(path, { signal, patience: 600000 })).blob();
}

/** Change something: `method` is PUT, POST or DELETE. Nothing is sent twice: throws Unreachable where nobody answers. */
export async function change(method, path, body) {
  return (await once(path, { method, body })).json();
}

/** Yield the pages of a list: `field` names its items, and `cursor` the parameter that `next` is the value of. */
export async function* pages(path, field, cursor, { signal } = {}) {
  let next = null;
  do {
    const page = await get(next === null ? path : withQuery(path, { [cursor]: next }), { signal });
    yield page[field];
    next = page.next;
  } while (next !== null);
}

/** Return all items of a list. */
export async function all(path, field, cursor, options) {
  const items = [];
  for await (const page of pages(path, field, cursor, options)) items.push(...page);
  return items;
}

/** Return a path with parameters, without those that are null. */
export function withQuery(path, parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined);
  if (!given.length) return path;
  return `${path}${path.includes("?") ? "&" : "?"}${new URLSearchParams(given)}`;
}

/** Wait; ends at once, with Superseded, when `signal` is aborted. */
export function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const over = () => { clearTimeout(timer); reject(new Superseded()); };
    const timer = setTimeout(() => { signal?.removeEventListener("abort", over); resolve(); }, milliseconds);
    if (signal?.aborted) over();
    else signal?.addEventListener("abort", over, { once: true });
  });
}

/** Wait, but no longer than until somebody clicks, who does not want to wait. */
async function pauseOrClick(milliseconds, signal) {
  const over = new AbortController();
  const clicked = new Promise((resolve) => { addEventListener("click", resolve, { once: true, signal: over.signal }); });
  await Promise.race([pause(milliseconds, signal), clicked]).finally(() => over.abort());
}

async function persistent(path, options) {
  for (let wait = FIRST_PAUSE_MS; ; wait = Math.min(2 * wait, LONGEST_PAUSE_MS)) {
    try {
      return await once(path, options);
    } catch (error) {
      if (error.status === 429) await pause(1000 * error.after, options.signal);
      else if (error instanceof Unreachable) await pauseOrClick(wait, options.signal);
      else throw error;
    }
  }
}

async function once(path, { method = "GET", body, signal, patience = PATIENCE_MS }) {
  const asked = token();
  const content = body === undefined ? undefined : JSON.stringify(body);
  const headers = { "FedCoLLM-Protocol": PROTOCOL, Authorization: `Bearer ${asked}` };
  if (content !== undefined) {
    headers["Content-Type"] = "application/json";
    // Over plain HTTP from another machine a browser has no digests, and the coordinator asks no token for one.
    if (hasSha256()) headers["Content-Digest"] = `sha-256=:${btoa(String.fromCharCode(...(await sha256(content))))}:`;
  }
  const over = AbortSignal.any([AbortSignal.timeout(patience), ...(signal ? [signal] : [])]);
  let response;
  try {
    response = await fetch(path, { method, headers, body: content, signal: over, cache: "no-cache" });
  } catch {
    if (signal?.aborted) throw new Superseded();
    throw lost();
  }
  if (signal?.aborted) throw new Superseded();
  if (AWAY.has(response.status)) throw lost();
  Object.assign(contact, { heardAt: Date.now() / 1000 });
  tell(false);
  if (response.ok) return response;
  throw await refusal(response, asked);
}

async function refusal(response, asked) {
  const problem = await response.json().catch(() => ({}));
  const error = new ApiError({
    status: response.status,
    code: problem.code ?? "",
    detail: problem.detail ?? `The coordinator answered with status ${response.status}.`,
    faults: problem.faults,
  });
  error.after = Number(response.headers.get("Retry-After")) || 1;
  if (response.status === 401 && session.you) {
    if (asked === token()) signOut(error.detail);
    return new Superseded();
  }
  return error;
}

function lost() {
  tell(true);
  return new Unreachable("The coordinator does not answer.");
}

function tell(isLost) {
  if (contact.isLost === isLost) return;
  contact.isLost = isLost;
  for (const listener of listeners) listener(contact);
}
