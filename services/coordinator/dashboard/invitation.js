// An invitation is made here, in the browser: its token leaves in the file alone, and the coordinator is told its digest.

import { hex, sha256 } from "./sha256.js";

const HOUR_SECONDS = 3600;
const TOKEN_BYTES = 32;

/** Return the invitation that goes into the file, and what the coordinator is told of it; `now` is its time. */
export async function invitation({ federation, now, url, name, hours, certificate }) {
  const token = base64url(crypto.getRandomValues(new Uint8Array(TOKEN_BYTES)));
  const expires_at = Math.floor(now) + hours * HOUR_SECONDS;
  const common = { federation: federation.federation, operator_key: federation.operator_key };
  return {
    file: { coordinator_url: url, ...common, name, token, expires_at, ca_certificate: certificate },
    told: { ...common, token_digest: `sha256:${hex(await sha256(token))}`, expires_at },
  };
}

function base64url(bytes) {
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
