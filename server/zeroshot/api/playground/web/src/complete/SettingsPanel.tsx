import { useState } from "preact/hooks";
import { tokenize } from "../api/generate";
import { ApiError } from "../api/http";
import { visible } from "../ui/format";
import { Icon } from "../ui/Icon";
import { defaultSettings, MAIN_SETTINGS, MORE_SETTINGS, unescaped, type Bias, type NumberSetting, type Settings } from "./settings";

interface Props {
  settings: Settings;
  wrongField: string | null;
  lastSeed: number | null;
  onChange: (settings: Settings) => void;
}

export function SettingsPanel({ settings, wrongField, lastSeed, onChange }: Props) {
  const set = (changed: Partial<Settings>) => onChange({ ...settings, ...changed });
  const slider = (setting: NumberSetting) => (
    <Slider
      key={setting.name}
      setting={setting}
      value={settings.numbers[setting.name] ?? ""}
      isWrong={wrongField === setting.name}
      onChange={(value) => set({ numbers: { ...settings.numbers, [setting.name]: value } })}
    />
  );
  return (
    <section class="panel" aria-labelledby="settings-title">
      <header class="panel-head">
        <h2 id="settings-title">Settings</h2>
        <button class="small" type="button" onClick={() => onChange(defaultSettings())}>
          Reset
        </button>
      </header>
      {MAIN_SETTINGS.map(slider)}
      <div class="field">
        <label class="label" for="seed">Seed</label>
        <div class="with-button">
          <input id="seed" class="number" type="text" inputMode="numeric" placeholder="random" value={settings.seed} aria-invalid={wrongField === "seed" || undefined} onInput={(event) => set({ seed: event.currentTarget.value })} />
          {lastSeed !== null && settings.seed === "" && (
            <button class="small" type="button" onClick={() => set({ seed: String(lastSeed) })}>Keep last</button>
          )}
        </div>
        <p class="hint">The same request with the same seed gives the same text.</p>
      </div>
      <details class="more">
        <summary>More settings</summary>
        <div class="more-fields">
          {MORE_SETTINGS.map(slider)}
          <Stops stops={settings.stop} onChange={(stop) => set({ stop })} />
          <div class="field">
            <label class="label" for="stop-ids">Stop token ids</label>
            <input id="stop-ids" class="number" type="text" value={settings.stopTokenIds} aria-invalid={wrongField?.startsWith("stop_token_ids") || undefined} onInput={(event) => set({ stopTokenIds: event.currentTarget.value })} />
          </div>
          <Biases biases={settings.biases} onChange={(biases) => set({ biases })} />
          <div class="field field-switch">
            <label class="label" for="ignore-eos">Go on after end of text</label>
            <input id="ignore-eos" type="checkbox" role="switch" checked={settings.ignoreEos} onChange={(event) => set({ ignoreEos: event.currentTarget.checked })} />
          </div>
        </div>
      </details>
    </section>
  );
}

function Slider({ setting, value, isWrong, onChange }: { setting: NumberSetting; value: string; isWrong: boolean; onChange: (value: string) => void }) {
  const { name, label, minimum, maximum, step, hint } = setting;
  const id = `setting-${name}`;
  const change = (event: { currentTarget: HTMLInputElement }) => onChange(event.currentTarget.value);
  return (
    <div class="field slider">
      <label class="label" for={id}>{label}</label>
      <input type="text" inputMode="decimal" class="number" aria-label={`${label}, as a number`} value={value} aria-invalid={isWrong || undefined} onInput={change} />
      <input id={id} type="range" min={minimum} max={maximum} step={step} value={value} aria-describedby={`${id}-hint`} onInput={change} />
      <p class="hint" id={`${id}-hint`}>{hint}</p>
    </div>
  );
}

function Chips({ items, onRemove }: { items: string[]; onRemove: (index: number) => void }) {
  return (
    <ul class="chips">
      {items.map((item, index) => (
        <li key={item}>
          {item}
          <button type="button" class="chip-remove" aria-label={`Remove ${item}`} onClick={() => onRemove(index)}><Icon name="cross" /></button>
        </li>
      ))}
    </ul>
  );
}

function Stops({ stops, onChange }: { stops: string[]; onChange: (stops: string[]) => void }) {
  const [text, setText] = useState("");
  const add = () => {
    if (text && !stops.includes(text)) onChange([...stops, text]);
    setText("");
  };
  return (
    <div class="field">
      <label class="label" for="stop">Stop at</label>
      <div class="with-button">
        <input id="stop" type="text" class="mono" placeholder="\n" value={text} onInput={(event) => setText(event.currentTarget.value)} onKeyDown={onEnter(add)} />
        <button class="small" type="button" onClick={add} disabled={!text}>Add</button>
      </div>
      <p class="hint">The text ends before any of these. <code>\n</code> is a new line.</p>
      <Chips items={stops} onRemove={(index) => onChange(stops.filter((_, other) => other !== index))} />
    </div>
  );
}

function Biases({ biases, onChange }: { biases: Bias[]; onChange: (biases: Bias[]) => void }) {
  const [text, setText] = useState("");
  const [bias, setBias] = useState("-5");
  const [message, setMessage] = useState("");
  const add = async () => {
    const amount = Number(bias);
    if (!(Math.abs(amount) <= 100) || bias.trim() === "") return setMessage("From -100 to 100.");
    try {
      const { tokens, token_strs } = await tokenize(unescaped(text));
      const added = tokens.map((token_id, index) => ({ token_id, token: token_strs[index]!, bias: amount }));
      onChange([...biases.filter((old) => !tokens.includes(old.token_id)), ...added]);
      setText("");
      setMessage("");
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      setMessage(error.message);
    }
  };
  const names = biases.map((one) => `${visible(one.token)} ${one.bias > 0 ? "+" : ""}${one.bias}`);
  return (
    <div class="field">
      <label class="label" for="bias-text">Bias</label>
      <div class="with-button">
        <input id="bias-text" type="text" class="mono" placeholder=" night" value={text} onInput={(event) => setText(event.currentTarget.value)} onKeyDown={onEnter(add)} />
        <input type="text" inputMode="decimal" class="number" aria-label="Bias, from -100 to 100" value={bias} onInput={(event) => setBias(event.currentTarget.value)} onKeyDown={onEnter(add)} />
        <button class="small" type="button" onClick={add} disabled={!text}>Add</button>
      </div>
      <p class="hint">Added to the logit of each token of the text. Most words begin with a space.</p>
      {message && <p class="field-error" role="alert">{message}</p>}
      <Chips items={names} onRemove={(index) => onChange(biases.filter((_, other) => other !== index))} />
    </div>
  );
}

/** Enter alone adds; with Ctrl or Cmd it runs, as everywhere. */
const onEnter = (add: () => void) => (event: KeyboardEvent) => {
  if (event.key !== "Enter" || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  add();
};
