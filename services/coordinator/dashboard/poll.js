// What keeps a page up to date while somebody looks at it.

import { get, pause, Superseded, withQuery } from "./api.js";

const LONGEST_POLL_SECONDS = 25;
const PATIENCE_MS = 1000 * (LONGEST_POLL_SECONDS + 10);

/** Call `refresh` every so many seconds while the page is visible, until `signal` is aborted. */
export async function every(seconds, refresh, signal) {
  await untilOver(signal, async () => {
    await pause(1000 * seconds, signal);
    await visible(signal);
    await refresh();
  });
}

/** Follow a run's log after the event `after`: `take(events)` is called with each piece of it, until `signal` is aborted. */
export async function follow(runId, after, take, signal) {
  let last = after;
  await untilOver(signal, async () => {
    await visible(signal);
    const path = withQuery(`/v1/runs/${runId}/events`, { after: last, wait_seconds: LONGEST_POLL_SECONDS });
    const page = await get(path, { signal, patience: PATIENCE_MS });
    last = page.last;
    if (page.events.length) await take(page.events);
  });
}

async function untilOver(signal, step) {
  try {
    while (!signal.aborted) await step();
  } catch (error) {
    if (!signal.aborted && !(error instanceof Superseded)) throw error;
  }
}

function visible(signal) {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve, reject) => {
    document.addEventListener("visibilitychange", () => resolve(), { once: true, signal });
    signal.addEventListener("abort", () => reject(new Superseded()), { once: true });
  });
}
