import { render } from "preact";
import { App } from "./app";
import { applyTheme, storedTheme } from "./ui/theme";
import "./styles/fonts.css";
import "./styles/tokens.css";
import "./styles/base.css";
import "./styles/controls.css";
import "./styles/shell.css";
import "./styles/tasks.css";
import "./styles/complete.css";
import "./styles/think.css";
import "./styles/engine.css";

applyTheme(storedTheme());
render(<App />, document.getElementById("app")!);
