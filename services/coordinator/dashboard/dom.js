// Elements out of text: what comes from the API is never read as HTML.

/**
 * Return an element. Attributes that are null, undefined or false are left out, and true is an empty one; functions are
 * listeners (`onclick`). Children are nodes, texts, numbers, or lists of them; null and false are left out.
 */
export function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** Return an element of SVG, likewise. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...nodes(children));
  return element;
}

/** Put these children in the place of those that an element has. */
export function put(element, ...children) {
  element.replaceChildren(...nodes(children));
}

/**
 * Put these children in the place of those that an element has, where they differ: what a reader has opened, focused or
 * selected stays as it is while nothing has changed.
 */
export function renew(element, ...children) {
  const fresh = nodes(children);
  const old = [...element.childNodes];
  if (fresh.length !== old.length) return element.replaceChildren(...fresh);
  fresh.forEach((node, at) => {
    if (node.nodeType === Node.TEXT_NODE ? node.isEqualNode(old[at]) : node === old[at] || node.isEqualNode(old[at])) return;
    keepOpen(old[at], node);
    const place = focusedIn(old[at]);
    old[at].replaceWith(node);
    if (place >= 0) stops(node)[place]?.focus({ preventScroll: true });
  });
}

/** Where in a node that is replaced the keyboard is: what takes its place there is focused. */
function focusedIn(node) {
  return node.contains(document.activeElement) ? stops(node).indexOf(document.activeElement) : -1;
}

function stops(node) {
  return node instanceof Element ? [...node.querySelectorAll("a, button, summary, input, textarea, [tabindex]")] : [];
}

/** What was opened stays open. */
function keepOpen(before, after) {
  if (!(before instanceof Element) || !(after instanceof Element)) return;
  const was = [before, ...before.querySelectorAll("details")].filter((each) => each.tagName === "DETAILS");
  const is = [after, ...after.querySelectorAll("details")].filter((each) => each.tagName === "DETAILS");
  was.forEach((each, at) => { if (is[at]) is[at].open = each.open; });
}

function nodes(children) {
  return children
    .flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : document.createTextNode(String(child))));
}

/** Hand a file to whoever looks: `content` is a text or a Blob. */
export function save(name, content, type = "text/plain") {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}
