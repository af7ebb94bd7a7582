// What the coordinator finds wrong with a value, in words for whoever has written it.

import { sentence } from "./format.js";

const IN_WORDS = [
  [/^Field required$|^String should have at least 1 character$/, () => "This has to be filled in."],
  [/^Input should be a valid integer/, () => "This has to be a whole number."],
  [/^Input should be a valid number/, () => "This has to be a number."],
  [/^Input should be greater than or equal to (\S+)$/, (limit) => `Too small: ${limit} is the least.`],
  [/^Input should be greater than (\S+)$/, (limit) => `Too small: it has to be above ${limit}.`],
  [/^Input should be less than or equal to (\S+)$/, (limit) => `Too large: ${limit} is the most.`],
  [/^Input should be less than (\S+)$/, (limit) => `Too large: it has to be below ${limit}.`],
  [/^String should have at most (\d+) characters$/, (limit) => `Too long: ${limit} characters are the most.`],
];

/** Return faults with messages in words; `patterns` say by a value's path how it may be written. */
export function inWords(faults, patterns) {
  return faults.map(({ where, message }) => {
    if (/^String should match pattern/.test(message) && patterns[where]) return { where, message: patterns[where] };
    for (const [form, words] of IN_WORDS) {
      const found = form.exec(message);
      if (found) return { where, message: words(found[1]) };
    }
    return { where, message: sentence(message) };
  });
}
