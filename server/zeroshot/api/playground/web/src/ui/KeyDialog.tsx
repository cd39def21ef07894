/** Asks for the API key once the server has refused a request for want of one. */

import { useEffect, useRef, useState } from "preact/hooks";
import { apiKey, whenUnauthorized } from "../api/http";

export function KeyDialog({ onKey }: { onKey: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [wasWrong, setWasWrong] = useState(false);
  const [key, setKey] = useState("");

  useEffect(
    () =>
      whenUnauthorized(() => {
        setWasWrong(apiKey.get() !== "");
        if (dialog.current && !dialog.current.open) dialog.current.showModal();
      }),
    [],
  );

  const submit = (event: Event) => {
    event.preventDefault();
    apiKey.set(key.trim());
    dialog.current?.close();
    setKey("");
    onKey();
  };

  return (
    <dialog ref={dialog} class="key-dialog" aria-labelledby="key-title">
      <form onSubmit={submit}>
        <h2 id="key-title">This server wants a key</h2>
        <p>{wasWrong ? "It did not accept the key you gave." : "Ask whoever runs it for one."} It is kept for this tab only.</p>
        <label class="field">
          <span class="label">API key</span>
          <input type="password" autocomplete="off" value={key} onInput={(event) => setKey(event.currentTarget.value)} required />
        </label>
        <div class="actions">
          <button class="primary" type="submit">
            Use this key
          </button>
          <button type="button" onClick={() => dialog.current?.close()}>
            Not now
          </button>
        </div>
      </form>
    </dialog>
  );
}
