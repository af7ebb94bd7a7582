// Who is signed in. The token is in this tab's session storage until it is closed, and in no address and no log.

import { get } from "./api.js";

const KEY = "fedcollm-token";

const listeners = new Set();

/** What is known of whoever is signed in: `you` is null where nobody is. `ended` says why a session was ended, `left` whose. */
export const session = {
  you: null,
  federation: null,
  version: null,
  ended: null,
  left: null,
  ahead: 0,

  /** The coordinator's time, by which all times of the API are, in seconds since 1970. */
  now() {
    return Date.now() / 1000 + session.ahead;
  },

  get isOperator() {
    return session.you?.role === "operator";
  },

  /** Go on with the token that this tab has, if it has one. */
  async resume() {
    if (token() === null) return changed();
    try {
      await load();
    } catch (error) {
      if (token() !== null) signOut(error.detail ?? error.message);
    }
  },
};

export function token() {
  return sessionStorage.getItem(KEY);
}

/** Call `listener` whenever somebody has signed in or out. */
export function onSession(listener) {
  listeners.add(listener);
}

/** Sign in; throws ApiError where the token is not one of an operator or a viewer, and keeps nothing. */
export async function signIn(given) {
  sessionStorage.setItem(KEY, given);
  try {
    await load();
  } catch (error) {
    sessionStorage.removeItem(KEY);
    throw error;
  }
}

/** Forget the token; `ended` is why, where it was not asked for. */
export function signOut(ended = null) {
  sessionStorage.removeItem(KEY);
  Object.assign(session, { left: session.you?.name ?? null, you: null, ended });
  changed();
}

async function load() {
  const { you, federation, version, now } = await get("/v1/federation");
  Object.assign(session, { you, federation, version, ended: null, ahead: now - Date.now() / 1000 });
  changed();
}

function changed() {
  for (const listener of listeners) listener();
}
