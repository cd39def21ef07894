/** The sampling settings of POST /generate: their ranges on the page, and the request body they make. */

export interface NumberSetting {
  name: string;
  label: string;
  /** The slider's range: where the setting is useful. The field beside it takes all that the server does. */
  minimum: number;
  maximum: number;
  step: number;
  default: number;
  hint: string;
}

export const MAIN_SETTINGS: NumberSetting[] = [
  { name: "temperature", label: "Temperature", minimum: 0, maximum: 2, step: 0.05, default: 0.8, hint: "0 always takes the most likely token; higher is more daring." },
  { name: "top_k", label: "Top k", minimum: 0, maximum: 100, step: 1, default: 40, hint: "Draw from the k most likely tokens. 0 is off." },
  { name: "top_p", label: "Top p", minimum: 0.05, maximum: 1, step: 0.05, default: 1, hint: "Draw from the fewest tokens that together are this likely. 1 is off." },
  { name: "max_tokens", label: "Length", minimum: 1, maximum: 512, step: 1, default: 80, hint: "Tokens at most." },
  { name: "n", label: "Side by side", minimum: 1, maximum: 8, step: 1, default: 1, hint: "Continuations of the same prompt." },
];

export const MORE_SETTINGS: NumberSetting[] = [
  { name: "min_p", label: "Min p", minimum: 0, maximum: 1, step: 0.01, default: 0, hint: "Drop tokens less than this share as likely as the best. 0 is off." },
  { name: "typical_p", label: "Typical p", minimum: 0.05, maximum: 1, step: 0.05, default: 1, hint: "Draw from the tokens nearest to the expected surprise that together are this likely. 1 is off." },
  { name: "repetition_penalty", label: "Repetition", minimum: 1, maximum: 2, step: 0.05, default: 1, hint: "Above 1 makes tokens seen before less likely." },
  { name: "presence_penalty", label: "Presence", minimum: -2, maximum: 2, step: 0.1, default: 0, hint: "Taken once from the logit of each token in the text so far." },
  { name: "frequency_penalty", label: "Frequency", minimum: -2, maximum: 2, step: 0.1, default: 0, hint: "Taken for each time the token is in the text so far." },
  { name: "min_tokens", label: "At least", minimum: 0, maximum: 128, step: 1, default: 0, hint: "Tokens before the text may end." },
];

export interface Bias {
  token_id: number;
  token: string;
  bias: number;
}

export interface Settings {
  numbers: Record<string, string>;
  seed: string;
  stop: string[];
  stopTokenIds: string;
  biases: Bias[];
  ignoreEos: boolean;
}

export function defaultSettings(): Settings {
  const numbers = Object.fromEntries([...MAIN_SETTINGS, ...MORE_SETTINGS].map(({ name, default: value }) => [name, String(value)]));
  return { numbers, seed: "", stop: [], stopTokenIds: "", biases: [], ignoreEos: false };
}

/** What the server takes when a field is left out; such a value is not sent. */
const SERVER_DEFAULTS: Record<string, number> = {
  temperature: 1, top_k: 0, top_p: 1, min_p: 0, typical_p: 1, repetition_penalty: 1, presence_penalty: 0,
  frequency_penalty: 0, min_tokens: 0, n: 1,
};

export function toBody(prompt: string, settings: Settings): Record<string, unknown> {
  const body: Record<string, unknown> = { prompt };
  for (const [name, text] of Object.entries(settings.numbers)) {
    if (text.trim() === "") continue;
    const number = Number(text);
    // What is no number goes to the server as it is: its answer names the field.
    if (number !== SERVER_DEFAULTS[name]) body[name] = Number.isFinite(number) ? number : text;
  }
  if (settings.seed.trim() !== "") body.seed = asInteger(settings.seed);
  if (settings.stop.length) body.stop = settings.stop.map(unescaped);
  const ids = settings.stopTokenIds.split(/[\s,]+/).filter(Boolean);
  if (ids.length) body.stop_token_ids = ids.map(asInteger);
  if (settings.biases.length) {
    body.logit_bias = Object.fromEntries(settings.biases.map(({ token_id, bias }) => [String(token_id), bias]));
  }
  if (settings.ignoreEos) body.ignore_eos = true;
  return body;
}

/** A number, if this is one that a JavaScript number holds exactly; a seed may be larger, and is then refused. */
function asInteger(text: string): number | string {
  const number = Number(text);
  return Number.isSafeInteger(number) ? number : text;
}

/** `\n` as it is typed -> a newline. */
export function unescaped(text: string): string {
  const meaning: Record<string, string> = { n: "\n", t: "\t", "\\": "\\" };
  return text.replace(/\\([nt\\])/g, (_, char: string) => meaning[char] ?? char);
}
