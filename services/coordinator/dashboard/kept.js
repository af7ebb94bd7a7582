// What somebody has written into a page, over a sign-in that the end of a session has forced.

const FIELDS = "input[id], select[id], textarea[id]";
// What no script may fill in, what is shown to nobody, what filters a page, and what has to be said anew.
const LEFT_OUT = "[type=file], [type=password], [type=search], [data-anew]";

let kept = null;

/** Keep the values of the fields in `page`, which is shown at `address` to whoever is called `name`. */
export function keep(page, address, name) {
  const fields = [...page.querySelectorAll(FIELDS)].filter((field) => !field.matches(LEFT_OUT));
  kept = { address, name, values: fields.map(({ id, value, checked }) => ({ id, value, checked })) };
}

/** Fill in what was kept, where it was of this address and of the same person, and forget it. */
export function fillIn(page, address, name) {
  const values = kept?.address === address && kept.name === name ? kept.values : [];
  kept = null;
  for (const { id, value, checked } of values) {
    const field = page.querySelector(`#${CSS.escape(id)}`);
    if (!field?.matches(FIELDS) || field.matches(LEFT_OUT)) continue;
    if (field.type === "checkbox") field.checked = checked;
    else field.value = value;
  }
}
