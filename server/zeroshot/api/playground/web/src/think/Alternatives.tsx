import type { Alternative, ScoredToken } from "../api/generate";
import { percent, visible } from "../ui/format";
import { Icon } from "../ui/Icon";

interface Props {
  token: ScoredToken | null;
  position: number | null;
  isRunning: boolean;
  onFollow: (alternative: Alternative) => void;
}

/** The ten tokens the model found likeliest at one place, as bars; each leads on to a text of its own. */
export function Alternatives({ token, position, isRunning, onFollow }: Props) {
  if (!token) {
    return (
      <aside class="panel alternatives" aria-label="Alternatives">
        <p class="hint">Point at a token, or move to one with the arrow keys.</p>
      </aside>
    );
  }
  const probability = token.logprob === null ? null : Math.exp(token.logprob);
  const likeliest = Math.exp(token.top[0]?.logprob ?? 0);
  const isAmongTop = token.top.some(({ token_id }) => token_id === token.token_id);
  return (
    <aside class="panel alternatives" aria-label="Alternatives">
      <header class="alternatives-head">
        <h2><code>{visible(token.token)}</code></h2>
        <p>
          {probability !== null && <strong>{percent(probability)}</strong>}
          {token.rank !== null && <> · choice no. {token.rank.toLocaleString("en")}</>}
          {position !== null && <> · token {position + 1}</>}
        </p>
      </header>
      <ol>
        {token.top.map((one) => (
          <Row key={one.token_id} one={one} likeliest={likeliest} isTaken={one.token_id === token.token_id} isRunning={isRunning} onFollow={onFollow} />
        ))}
        {!isAmongTop && token.logprob !== null && <Row one={{ ...token, logprob: token.logprob }} likeliest={likeliest} isTaken isRunning={isRunning} onFollow={onFollow} />}
      </ol>
    </aside>
  );
}

interface RowProps {
  one: Alternative;
  /** The bars are drawn to the likeliest's measure: among many choices all are small. */
  likeliest: number;
  isTaken: boolean;
  isRunning: boolean;
  onFollow: (one: Alternative) => void;
}

function Row({ one, likeliest, isTaken, isRunning, onFollow }: RowProps) {
  const share = Math.exp(one.logprob);
  const name = visible(one.token);
  const label = isTaken ? `${name}, ${percent(share)}, in the text` : `Go on with ${name}, ${percent(share)}`;
  return (
    <li>
      <button type="button" class={isTaken ? "alternative is-taken" : "alternative"} disabled={isTaken || isRunning} onClick={() => onFollow(one)} aria-label={label}>
        <span class="bar-track"><span class="bar-fill" style={{ width: `${(share / likeliest) * 100}%` }} /></span>
        <code>{name}</code>
        <span class="bar-number">{percent(share)}</span>
        {!isTaken && <Icon name="branch" />}
      </button>
    </li>
  );
}
