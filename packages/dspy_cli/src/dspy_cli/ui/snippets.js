/** A run as a command to repeat it. No DOM. */

/** @typedef {{ url: string, body: unknown, stream: boolean, auth: boolean }} Call */

const quoted = (/** @type {string} */ text) => `'${text.replaceAll("'", `'\\''`)}'`;

/** @param {Call} call */
export function curl({ url, body, stream, auth }) {
  return [
    `curl ${stream ? "-N " : ""}${quoted(stream ? `${url}/stream` : url)}`,
    ...(auth ? [`-H "Authorization: Bearer $DSPY_CLI_KEY"`] : []),
    `-H 'Content-Type: application/json'`,
    `-d ${quoted(JSON.stringify(body))}`,
  ].join(" \\\n  ");
}

/** With httpx. @param {Call} call */
export function python({ url, body, stream, auth }) {
  const headers = auth ? `, headers={"Authorization": f"Bearer {os.environ['DSPY_CLI_KEY']}"}` : "";
  const about = `${text(stream ? `${url}/stream` : url)}, json=inputs${headers}, timeout=None`;
  const imports = [...(stream ? ["json"] : []), ...(auth ? ["os"] : [])].map((name) => `import ${name}\n`).join("");
  const call = stream
    ? `with httpx.stream("POST", ${about}) as response:\n    response.raise_for_status()\n    for line in response.iter_lines():\n        if line.startswith("data: "):\n            print(json.loads(line[6:]))`
    : `response = httpx.post(${about})\nresponse.raise_for_status()\nprint(response.json())`;
  return `${imports}${imports ? "\n" : ""}import httpx\n\ninputs = ${literal(body)}\n${call}\n`;
}

/** With nothing but Python. @param {Call} call */
export function urllib({ url, body, auth }) {
  const key = auth ? `, "Authorization": f"Bearer {os.environ['DSPY_CLI_KEY']}"` : "";
  return (
    `import json\n${auth ? "import os\n" : ""}from urllib.request import Request, urlopen\n\n` +
    `inputs = ${literal(body)}\n` +
    `request = Request(${text(url)}, json.dumps(inputs).encode(), {"Content-Type": "application/json"${key}})\n` +
    `with urlopen(request) as response:\n    print(json.load(response))\n`
  );
}

/** A Python string: JSON's escapes are Python's, but for lone surrogates and the `/`. @param {string} value */
const text = (value) => JSON.stringify(value);

/** A JSON value as Python writes it. @param {unknown} value @param {string} margin @returns {string} */
export function literal(value, margin = "") {
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value === "string") return text(value);
  if (typeof value !== "object") return String(value);
  const inner = `${margin}    `;
  const parts = Array.isArray(value)
    ? value.map((item) => literal(item, inner))
    : Object.entries(value).map(([key, item]) => `${text(key)}: ${literal(item, inner)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  const line = `${open}${parts.join(", ")}${close}`;
  if (line.length < 80 && !line.includes("\n")) return line;
  return `${open}\n${parts.map((part) => `${inner}${part},\n`).join("")}${margin}${close}`;
}
