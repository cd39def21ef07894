import type { ApiError } from "../api/http";

/** What went wrong, in words, and what can be done about it. */
export function ErrorNote({ error, onRetry }: { error: ApiError; onRetry?: () => void }) {
  return (
    <div class="error-note" role="alert">
      <p>{error.message}</p>
      <p class="error-code">
        {error.status ? `${error.status} ` : ""}
        {error.code}
        {error.retryAfterS !== null && ` · free again in about ${error.retryAfterS} s`}
      </p>
      {onRetry && (
        <button type="button" onClick={onRetry}>
          Try again
        </button>
      )}
    </div>
  );
}
