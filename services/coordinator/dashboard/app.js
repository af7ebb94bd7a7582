// The shell: which page an address shows, the navigation, who is signed in, and what is said while nobody answers.

import { ApiError, Superseded, onContact } from "./api.js";
import { notice } from "./components.js";
import { h, put } from "./dom.js";
import { clock, sentence } from "./format.js";
import { fillIn, keep } from "./kept.js";
import { onSession, session, signOut } from "./session.js";

// Every page, once. `path` is what follows the # of the address, where ":" names a part that is handed to the page;
// `nav` is its name in the navigation, if it is there, and `under` which other page is marked there.
//
// A page's module exports `show(view, parts)`. It puts its nodes, which have one h1, into the page with `view.put(...)`
// once it has data, and what it awaits before it returns is what is waited for. What it does later goes on until
// `view.signal` is aborted, which is when another page comes.
const PAGES = [
  { path: "federation", nav: "Federation", load: () => import("./pages/federation.js") },
  { path: "runs", nav: "Runs", load: () => import("./pages/runs.js") },
  { path: "runs/:id", load: () => import("./pages/run.js") },
  { path: "new-run", under: "runs", load: () => import("./pages/new_run.js") },
  { path: "agents", nav: "Agents", load: () => import("./pages/agents.js") },
  { path: "agents/invite", load: () => import("./pages/invite.js") },
  { path: "adapters", nav: "Adapters", load: () => import("./pages/adapters.js") },
  { path: "adapters/:run/:round", load: () => import("./pages/card.js") },
  { path: "ask", nav: "Ask", load: () => import("./pages/ask.js") },
  { path: "audit", nav: "Audit log", load: () => import("./pages/audit.js") },
];
const HOME = "federation";
const SAID_AFTER_MS = 300;
const SIGN_IN = { path: "sign-in", load: () => import("./pages/sign_in.js") };

const root = document.documentElement;
const main = document.getElementById("main");
const loading = document.getElementById("loading");
let leaving = new AbortController();
let isFirst = true;
let shownAt = null;

/** Return the page that an address asks for, and the parts of it that have names. */
function pageAt(hash) {
  const asked = hash.replace(/^#\/?/, "").split("?")[0].split("/").map(decoded);
  for (const page of PAGES) {
    const parts = page.path.split("/");
    if (parts.length === asked.length && parts.every((part, at) => part.startsWith(":") || part === asked[at])) {
      return [page, Object.fromEntries(parts.map((part, at) => [part.slice(1), asked[at]]))];
    }
  }
  return [null, {}];
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Show the page of the address; whatever the page before has under way ends. */
async function navigate() {
  if (!location.hash) history.replaceState(null, "", `#/${HOME}`);
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const [page, parts] = session.you ? pageAt(location.hash) : [SIGN_IN, {}];
  delete root.dataset.ready;
  main.setAttribute("aria-busy", "true");
  closeDialogs();
  markCurrent(page);
  const loaded = sayLoading(signal);
  const view = {
    signal,
    query: new URLSearchParams(location.hash.split("?")[1]),
    put: (...nodes) => signal.aborted || put(main, ...nodes),
  };
  try {
    if (page === null) throw new ApiError({ status: 404, code: "not_found", detail: "The dashboard has no such page." });
    await (await page.load()).show(view, parts);
  } catch (error) {
    if (signal.aborted || error instanceof Superseded) return;
    view.put(...failure(error));
  }
  if (signal.aborted) return;
  main.removeAttribute("aria-busy");
  loaded();
  shownAt = location.hash;
  if (session.you) fillIn(main, shownAt, session.you.name);
  arrive(page);
}

/** The page before stays until the one that was asked for is there: say so, if that takes long enough to wonder. Returns what ends that. */
function sayLoading(signal) {
  const timer = setTimeout(() => main.hasChildNodes() && put(loading, "Loading…"), SAID_AFTER_MS);
  const loaded = () => { clearTimeout(timer); put(loading); };
  signal.addEventListener("abort", loaded, { once: true });
  return loaded;
}

function closeDialogs() {
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
}

function failure(error) {
  if (!(error instanceof ApiError)) console.error(error);
  const heading = { 403: "This is not for you", 404: "There is nothing here" }[error.status] ?? "This did not work";
  const detail = error.detail ?? `The dashboard has failed: ${error.message}`;
  return [h("div", { class: "head" }, h("h1", { tabindex: -1 }, heading)), notice("warn", null, h("p", {}, sentence(detail)),
    error.code && h("p", { class: "small quiet" }, "Code: ", h("code", {}, error.code)))];
}

/** Name the page in the window's title, and begin reading it at its heading. */
function arrive(page) {
  const heading = main.querySelector("h1");
  document.title = [heading?.textContent, session.federation, "FedCoLLM"].filter(Boolean).join(" · ");
  if (heading && !isFirst) {
    heading.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
  // The others' modules are there before they are needed, because a coordinator that is away has none to give.
  if (isFirst) PAGES.forEach((each) => each.load().catch(() => {}));
  isFirst = false;
  root.dataset.ready = page?.path ?? "nothing";
}

function markCurrent(page) {
  const section = page?.under ?? page?.path.split("/")[0];
  for (const link of document.querySelectorAll("#nav a")) {
    const isCurrent = link.hash === `#/${section}`;
    if (isCurrent) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

/** Draw what surrounds the pages, for whoever is signed in. */
function drawShell() {
  const { you } = session;
  const nav = document.getElementById("nav");
  const who = document.getElementById("who");
  const links = PAGES.filter((page) => page.nav).map((page) =>
    h("li", {}, h("a", { href: `#/${page.path}` }, page.nav)));
  put(nav, h("ul", {}, ...links));
  if (you) {
    put(who, h("span", {}, `${you.name} `, h("span", { class: "badge" }, you.role)),
      h("button", { type: "button", onclick: () => signOut() }, "Sign out"));
  }
  nav.hidden = who.hidden = !you;
  document.getElementById("federation").textContent = session.federation ?? "";
  document.getElementById("foot").textContent = session.version
    ? `FedCoLLM ${session.version}. Times are UTC.` : "FedCoLLM. Times are UTC.";
}

onSession(() => {
  if (session.ended) keep(main, shownAt, session.left);
  drawShell();
  navigate();
});

onContact(({ isLost, heardAt }) => {
  const heard = heardAt ? ` Last heard ${clock(heardAt)} UTC.` : "";
  put(document.getElementById("banner"), isLost && h("p", {}, `The coordinator does not answer.${heard} Trying again.`));
});

document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names the page
  main.focus();
});
addEventListener("hashchange", navigate);

await session.resume();
