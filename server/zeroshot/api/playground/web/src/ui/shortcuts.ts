/** Ctrl or Cmd with Enter runs, Escape stops: in every view the same. */

interface Actions {
  onRun: () => void;
  onStop: () => void;
}

export const runAndStop =
  ({ onRun, onStop }: Actions) =>
  (event: KeyboardEvent): void => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      onRun();
    } else if (event.key === "Escape") onStop();
  };

export const RUN_KEYS = /Mac|iPhone|iPad/.test(navigator.userAgent) ? "⌘↵" : "Ctrl ↵";
