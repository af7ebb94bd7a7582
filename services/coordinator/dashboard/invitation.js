// An invitation is made here, in the browser: its token leaves in the file alone, and the coordinator is told its digest.

const HOUR_SECONDS = 3600;
const TOKEN_BYTES = 32;

/** Whether this browser can make one: over plain HTTP from another machine it has no SHA-256. */
export function canInvite() {
  return Boolean(globalThis.crypto?.subtle);
}

/** Return the invitation that goes into the file, and what the coordinator is told of it. */
export async function invitation({ federation, url, name, hours, certificate }) {
  const token = base64url(crypto.getRandomValues(new Uint8Array(TOKEN_BYTES)));
  const expires_at = Math.floor(federation.now) + hours * HOUR_SECONDS;
  const common = { federation: federation.federation, operator_key: federation.operator_key };
  return {
    file: { coordinator_url: url, ...common, name, token, expires_at, ca_certificate: certificate },
    told: { ...common, token_digest: `sha256:${await sha256(token)}`, expires_at },
  };
}

function base64url(bytes) {
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

async function sha256(text) {
  const bytes = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
