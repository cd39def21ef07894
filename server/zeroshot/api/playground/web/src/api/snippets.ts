/** A request as code to paste: curl, Python without a library of ours, the openai client. */

export type Language = "curl" | "Python" | "openai";

export interface Call {
  path: string;
  body: Record<string, unknown>;
}

export interface Target {
  /** Where the server is, without a slash at the end. */
  origin: string;
  needsKey: boolean;
}

/** What to run with the openai client; null where that API has nothing like it. */
export interface OpenAICall {
  model: string;
  prompt: string;
  settings: Record<string, unknown>;
}

const OPENAI_OWN = new Set([
  "max_tokens", "temperature", "top_p", "n", "stop", "seed", "presence_penalty", "frequency_penalty", "logit_bias",
  "logprobs", "echo", "stream",
]);

export function curl({ path, body }: Call, { origin, needsKey }: Target): string {
  const lines = [`curl ${body.stream ? "-N " : ""}${origin}/${path}`, "-H 'Content-Type: application/json'"];
  if (needsKey) lines.push('-H "Authorization: Bearer $ZEROSHOT_API_KEY"');
  lines.push(`-d ${shellQuoted(JSON.stringify(body))}`);
  return lines.join(" \\\n  ");
}

export function python({ path, body }: Call, { origin, needsKey }: Target): string {
  const imports = needsKey ? "import os\n\nimport httpx" : "import httpx";
  const headers = needsKey ? '\n    headers={"Authorization": f"Bearer {os.environ[\'ZEROSHOT_API_KEY\']}"},' : "";
  return `${imports}

answer = httpx.post(
    ${pythonLiteral(`${origin}/${path}`)},
    json=${pythonLiteral(body, "    ")},${headers}
    timeout=60,
)
answer.raise_for_status()
print(answer.json())`;
}

export function openai({ model, prompt, settings }: OpenAICall, { origin, needsKey }: Target): string {
  const own = Object.entries(settings).filter(([name]) => OPENAI_OWN.has(name));
  const extra = Object.fromEntries(Object.entries(settings).filter(([name]) => !OPENAI_OWN.has(name)));
  const lines = [`model=${pythonLiteral(model)},`, `prompt=${pythonLiteral(prompt)},`];
  lines.push(...own.map(([name, value]) => `${name}=${pythonLiteral(value, "    ")},`));
  if (Object.keys(extra).length) lines.push(`extra_body=${pythonLiteral(extra, "    ")},`);
  return `${needsKey ? "import os\n\n" : ""}from openai import OpenAI

client = OpenAI(base_url=${pythonLiteral(`${origin}/v1`)}, api_key=${needsKey ? 'os.environ["ZEROSHOT_API_KEY"]' : '"none"'})
answer = client.completions.create(
    ${lines.join("\n    ")}
)
for choice in answer.choices:
    print(choice.text)`;
}

export function shellQuoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** A JSON value in Python's words; objects over one line each entry when `indent` is given. */
export function pythonLiteral(value: unknown, indent?: string): string {
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map((item) => pythonLiteral(item)).join(", ")}]`;
  const entries = Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${pythonLiteral(item)}`);
  if (indent === undefined || entries.length < 2) return `{${entries.join(", ")}}`;
  return `{\n${entries.map((entry) => `${indent}    ${entry},\n`).join("")}${indent}}`;
}
