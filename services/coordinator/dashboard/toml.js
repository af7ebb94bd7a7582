// A run's terms as a TOML file, in the form that `fedcollm runs sign` reads.

/** Return a TOML document: values first, then tables. What is null or undefined is left out. */
export function toml(values) {
  return table(values, []).join("\n") + "\n";
}

function table(values, path) {
  const given = Object.entries(values).filter(([, value]) => value !== null && value !== undefined);
  const lines = given.filter(([, value]) => !isTable(value)).map(([name, value]) => `${name} = ${written(value)}`);
  for (const [name, value] of given.filter(([, each]) => isTable(each))) {
    lines.push("", `[${[...path, name].join(".")}]`, ...table(value, [...path, name]));
  }
  return lines;
}

function isTable(value) {
  return typeof value === "object" && !Array.isArray(value);
}

function written(value) {
  if (Array.isArray(value)) return `[${value.map(written).join(", ")}]`;
  // JSON's strings are TOML's, but for one character that JSON leaves as it is.
  return JSON.stringify(value).replaceAll("\u007f", "\\u007f");
}
