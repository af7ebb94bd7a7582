// Values as people read them: each with its unit, each time in UTC.

const MINUTE = 60;
const HOUR = 3600;
const DAY = 86400;

/** 1234567 -> 1,234,567 */
export function count(value) {
  return value.toLocaleString("en-GB");
}

/** 1, "agent" -> 1 agent; 3, "agent" -> 3 agents */
export function counted(value, noun, plural = `${noun}s`) {
  return `${count(value)} ${value === 1 ? noun : plural}`;
}

/** 0.9123 -> 91.2 % */
export function percent(share, digits = 1) {
  return `${(100 * share).toFixed(digits)} %`;
}

/** [0.81, 0.93] -> 81.0 to 93.0 % */
export function interval([low, high]) {
  return `${(100 * low).toFixed(1)} to ${percent(high)}`;
}

/** A loss, in nats. */
export function nats(loss) {
  return `${loss.toFixed(4)} nats`;
}

/** 6000000 -> 6.00 MB */
export function bytes(size) {
  if (size >= 999_995_000) return `${(size / 1e9).toFixed(2)} GB`;
  if (size >= 999_950) return `${(size / 1e6).toFixed(2)} MB`;
  return size < 1000 ? `${size} B` : `${(size / 1e3).toFixed(1)} kB`;
}

/** 4.2 -> 4.2 s; 4 -> 4 s; 75 -> 1 min 15 s; 60 -> 1 min; 7500 -> 2 h 5 min; 200000 -> 2 d 7 h */
export function duration(seconds) {
  if (seconds === 0) return "0 s";
  if (seconds < 0.9995) return `${Math.round(Math.max(0, seconds) * 1000)} ms`;
  if (seconds < 9.95 && !Number.isInteger(seconds)) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < MINUTE) return `${whole} s`;
  if (whole < HOUR) return both(Math.floor(whole / MINUTE), "min", whole % MINUTE, "s");
  if (whole < DAY) return both(Math.floor(whole / HOUR), "h", Math.floor((whole % HOUR) / MINUTE), "min");
  return both(Math.floor(whole / DAY), "d", Math.floor((whole % DAY) / HOUR), "h");
}

function both(large, unit, small, smaller) {
  return small ? `${large} ${unit} ${small} ${smaller}` : `${large} ${unit}`;
}

/** How long ago, in whole steps that do not flicker. */
export function ago(seconds) {
  if (seconds < 10) return "just now";
  const step = seconds < MINUTE ? 10 : MINUTE;
  return `${duration(step * Math.floor(seconds / step))} ago`;
}

/** Seconds since 1970 -> 2026-11-25 20:44:54 */
export function dateTime(at) {
  return new Date(1000 * at).toISOString().slice(0, 19).replace("T", " ");
}

/** Seconds since 1970 -> 20:44:54 */
export function clock(at) {
  return dateTime(at).slice(11);
}

/** sha256:0123…: the beginning of a digest, or of a key. */
export function short(text) {
  const [, kind, rest] = /^([a-z0-9]+:)?(.*)$/s.exec(text);
  return rest.length <= 12 ? text : `${kind ?? ""}${rest.slice(0, 10)}…`;
}

/** A value of an entry in a log: no longer than people read. */
export function written(value) {
  if (typeof value === "number") return Number.isInteger(value) ? count(value) : String(Number(value.toPrecision(4)));
  if (typeof value === "object") return JSON.stringify(value, (_, each) => (typeof each === "number" ? Number(each.toPrecision(4)) : each));
  return /^(sha256|ed25519):/.test(value) ? short(value) : String(value);
}

/** What the coordinator says, as a sentence. */
export function sentence(text) {
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?:]$/.test(begun) ? begun : `${begun}.`;
}
