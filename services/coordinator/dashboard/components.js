// What pages are made of: cards, tables, badges, notices, times, digests, dialogs. The look is in style.css.

import { h } from "./dom.js";
import { dateTime, sentence, short } from "./format.js";

let made = 0;

/** Return an id that nothing else on the page has. */
function freshId(word) {
  made += 1;
  return `${word}-${made}`;
}

/** The beginning of a page: its heading, and what may be done here. */
export function pageHead(title, ...actions) {
  return h("div", { class: "head" }, h("h1", { tabindex: -1 }, title), actions.flat().some(Boolean) && h("div", { class: "row" }, actions));
}

/** A part of a page, with its heading. */
export function card(title, ...children) {
  return h("section", { class: "card", "aria-label": title }, h("h2", {}, title), children);
}

/** `kind` is good, warn, bad or nothing; the title may be null. */
export function notice(kind, title, ...children) {
  return h("section", { class: `notice ${kind ?? ""}`, "aria-label": title ?? "Notice" }, title && h("h2", {}, title), children);
}

/** Said where there is nothing to show: why, and what to do. */
export function empty(...children) {
  return h("div", { class: "empty" }, h("p", {}, children));
}

export function badge(text, kind = "") {
  return h("span", { class: `badge ${kind}`.trim() }, text);
}

const KINDS = { running: "info", finished: "good", failed: "bad", paused: "warn", published: "good", refused: "warn",
  aborted: "bad", stopped: "warn", approved: "good", pending: "warn", revoked: "bad" };

/** A state of a run, a round or an agent. */
export function stateBadge(state) {
  return badge(state, KINDS[state] ?? (state === "draft" || state === "invited" ? "" : "info"));
}

/** Names and values: [["Opened", node], …]; null in place of a pair is left out. */
export function facts(...pairs) {
  return h("dl", { class: "facts" }, pairs.filter(Boolean).map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

/** Numbers at a glance: [["Agents", "12", "of 14", "a line below it"], …]. */
export function figures(...each) {
  return h("dl", { class: "figures" }, each.filter(Boolean).map(([name, value, unit, note]) =>
    h("div", {}, h("dt", {}, name), h("dd", {}, value, unit && [" ", h("small", {}, unit)], note && h("span", { class: "note" }, note)))));
}

/**
 * A table. Columns are `{name, number}`; a row is a list of cells, of which the first names it. On a phone the rows are
 * read one below the other, unless `wide`: then the table scrolls.
 */
export function table(caption, columns, rows, { wide = false } = {}) {
  const className = (column) => (column.number ? "number" : null);
  const head = h("tr", {}, columns.map((column) => h("th", { scope: "col", class: className(column) }, column.name)));
  const body = rows.map((cells) => h("tr", {}, cells.map((cell, at) =>
    h(at ? "td" : "th", { scope: at ? null : "row", class: className(columns[at]), "data-label": columns[at].name }, cell || cell === 0 ? cell : "–"))));
  const drawn = h("table", { class: wide ? null : "stacks" }, h("caption", { class: "unseen" }, caption),
    h("thead", {}, head), h("tbody", {}, body));
  return h("div", { class: "scroll", tabindex: wide ? 0 : null, role: wide ? "region" : null, "aria-label": wide ? caption : null }, drawn);
}

/** A moment, in UTC. */
export function time(at) {
  return h("time", { class: "nowrap", datetime: new Date(1000 * at).toISOString() }, `${dateTime(at)} UTC`);
}

/** A digest or a key, shortened, with a button that copies the whole of it. */
export function digest(whole, what = "digest") {
  return h("span", { class: "nowrap" }, h("code", { title: whole }, short(whole)), " ", copyButton(whole, `the ${what}`));
}

/** A button that copies a text; `what` it is, for who does not see the text beside it. */
function copyButton(text, what) {
  if (!navigator.clipboard) return null; // over plain HTTP from another machine
  const button = h("button", { type: "button", class: "copy", "aria-label": `Copy ${what}`, onclick: copy }, "Copy");
  async function copy() {
    const isCopied = await navigator.clipboard.writeText(text).then(() => true, () => false);
    button.textContent = isCopied ? "Copied" : "Not copied";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  }
  return button;
}

/** A command to be given on a machine, with a button that copies it. */
export function command(text) {
  return h("div", { class: "command" }, h("code", {}, text), copyButton(text, "the command"));
}

/**
 * Ask for a confirmation and do it. `action(text)` does it, and its error is shown in the dialog, which stays open then;
 * `reason` is the label of a text that is asked for. Returns whether it was done.
 */
export function confirm({ title, text, label, danger = false, reason = null, action }) {
  return new Promise((resolve) => {
    const heading = freshId("dialog");
    const field = reason && h("textarea", { id: `${heading}-reason`, rows: 3, maxlength: 400, required: true });
    const fault = h("p", { class: "fault", role: "alert" });
    const go = h("button", { class: danger ? "danger" : "primary", type: "submit" }, label);
    let isDone = false;
    const dialog = h("dialog", { "aria-labelledby": heading, onclose: () => { dialog.remove(); resolve(isDone); } },
      h("form", { class: "stack", onsubmit: submit },
        h("h2", { id: heading }, title), h("p", {}, text),
        field && h("div", { class: "field" }, h("label", { for: field.id }, reason), field),
        fault,
        h("div", { class: "row" }, go, h("button", { type: "button", onclick: () => dialog.close() }, "Leave it as it is"))));
    async function submit(event) {
      event.preventDefault();
      go.disabled = true;
      try {
        await action(field?.value.trim());
        isDone = true;
        dialog.close();
      } catch (error) {
        fault.textContent = sentence(error.detail ?? error.message);
        go.disabled = false;
      }
    }
    document.body.append(dialog);
    dialog.showModal();
  });
}
