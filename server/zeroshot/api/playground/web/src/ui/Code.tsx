/** The request as code: curl, Python, the openai client. */

import { useState } from "preact/hooks";
import { apiKey, url } from "../api/http";
import { curl, openai, python, type Call, type Language, type OpenAICall } from "../api/snippets";
import { CopyButton } from "./CopyButton";

const LANGUAGES: Language[] = ["curl", "Python", "openai"];

interface Props {
  call: Call;
  /** Null where the openai client can't do this; `whyNot` says why. */
  openaiCall: OpenAICall | null;
  whyNot?: string;
}

export function Code({ call, openaiCall, whyNot }: Props) {
  const [language, setLanguage] = useState<Language>("curl");
  const target = { origin: url("").replace(/\/$/, ""), needsKey: apiKey.get() !== "" };
  const text =
    language === "curl" ? curl(call, target)
    : language === "Python" ? python(call, target)
    : openaiCall && openai(openaiCall, target);
  return (
    <details class="code">
      <summary>Use it from code</summary>
      <div class="code-bar">
        <div class="segmented" role="group" aria-label="Language">
          {LANGUAGES.map((name) => (
            <button key={name} type="button" aria-pressed={name === language} onClick={() => setLanguage(name)}>
              {name}
            </button>
          ))}
        </div>
        {text && <CopyButton text={text} />}
      </div>
      {text ? <pre tabIndex={0} aria-label={`As ${language}`}><code>{text}</code></pre> : <p class="hint">{whyNot}</p>}
    </details>
  );
}
