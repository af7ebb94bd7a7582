// Keeps the status page up to date: asks for it again and takes over the parts that say so. Without this the page is
// the same, and as old as it is.

const PERIOD_MS = 3000;
const PATIENCE_MS = 5000;

async function refresh() {
  const gone = document.getElementById("gone");
  try {
    const answer = await fetch(location.pathname, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.title = fresh.title;
    for (const part of document.querySelectorAll("[data-live]")) {
      const now = fresh.getElementById(part.id);
      if (now.innerHTML !== part.innerHTML) part.replaceChildren(...now.childNodes);
    }
    gone.hidden = true;
  } catch {
    gone.hidden = false;
  }
}

for (;;) {
  await new Promise((resolve) => setTimeout(resolve, PERIOD_MS));
  if (!document.hidden) await refresh();
}
