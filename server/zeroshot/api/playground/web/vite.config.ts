/// <reference types="vitest/config" />
import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";
import { recordSources, thirdPartyLicences } from "./build/record.ts";

const root = fileURLToPath(new URL(".", import.meta.url));

const API = ["tasks", "generate", "score", "tokenize", "health", "metrics", "v1", "docs", "openapi.json"];

export default defineConfig({
  base: "./", // relative, so that the page also works behind a path prefix
  build: {
    outDir: "../static",
    emptyOutDir: true,
    assetsDir: "playground",
    assetsInlineLimit: 0, // the content security policy allows no data: scripts, styles or fonts
    modulePreload: { polyfill: false },
    target: "es2022",
  },
  server: { proxy: Object.fromEntries(API.map((path) => [`/${path}`, "http://127.0.0.1:8000"])) }, // npm run dev, beside make serve
  plugins: [recordSources(root), thirdPartyLicences(root)],
  test: { include: ["tests/**/*.test.ts"], environment: "node" },
});
