// What keeps a page up to date while somebody looks at it.

import { ApiError, get, pause, Superseded, withQuery } from "./api.js";

const LONGEST_POLL_SECONDS = 25;
const AFTER_REFUSAL_MS = 10000;
const PATIENCE_MS = 1000 * (LONGEST_POLL_SECONDS + 10);

/** Call `refresh` every so many seconds while the page is visible, until `signal` is aborted. */
export async function every(seconds, refresh, signal) {
  await untilOver(signal, async () => {
    await pause(1000 * seconds, signal);
    await visible(signal);
    await refresh();
  });
}

/**
 * Follow a run's log from its beginning: `take(events)` is called with each piece of it, and without any now and then,
 * until `signal` is aborted, or there is nothing more and `isOver()`.
 */
export async function follow(runId, take, signal, isOver) {
  let after = 0;
  await untilOver(signal, async () => {
    await visible(signal);
    const over = isOver();
    const path = `/v1/runs/${encodeURIComponent(runId)}/events`;
    const wait = over ? 0 : LONGEST_POLL_SECONDS;
    const page = await get(withQuery(path, { after, wait_seconds: wait }), { signal, patience: PATIENCE_MS });
    after = page.last;
    await take(page.events);
    return over && page.events.length === 0;
  });
}

/** Repeat a step until it returns true or `signal` is aborted; one that the coordinator refuses is tried again later. */
async function untilOver(signal, step) {
  while (!signal.aborted) {
    try {
      if (await step()) return;
    } catch (error) {
      if (signal.aborted || error instanceof Superseded) return;
      if (!(error instanceof ApiError)) throw error;
      await pause(AFTER_REFUSAL_MS, signal).catch(() => {});
    }
  }
}

function visible(signal) {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve, reject) => {
    document.addEventListener("visibilitychange", () => resolve(), { once: true, signal });
    signal.addEventListener("abort", () => reject(new Superseded()), { once: true });
  });
}
