// SHA-256, and what is made of it. Over plain HTTP from another machine a browser has none.

export function hasSha256() {
  return Boolean(globalThis.crypto?.subtle);
}

/** Return the 32 bytes of a text. */
export async function sha256(text) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)));
}

export function hex(bytes) {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The short form of a public key, for people to compare, as the commands and the log show it: a01b-23c4-… */
export async function fingerprint(key) {
  return hex(await sha256(key)).slice(0, 16).match(/.{4}/g).join("-");
}
