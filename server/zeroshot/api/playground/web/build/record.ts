/** What a build leaves beside the page: a hash of the sources it was made from, and the licences of what is in it. */

import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Plugin } from "vite";

const BUNDLED = [
  "preact",
  "@fontsource-variable/instrument-sans",
  "@fontsource-variable/source-serif-4",
  "@fontsource/ibm-plex-mono",
];
const NOT_SOURCES = new Set(["node_modules", "tests"]);

/** SHA-256 over every source file's path and content. tests/playground computes the same in Python. */
export function hashSources(root: string): string {
  const hash = createHash("sha256");
  for (const path of sourceFiles(root, "").sort()) {
    const content = readFileSync(join(root, path));
    hash.update(`${path}\n${content.length}\n`).update(content);
  }
  return hash.digest("hex");
}

function sourceFiles(root: string, folder: string): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    if (folder === "" && NOT_SOURCES.has(entry.name)) return [];
    const path = folder ? `${folder}/${entry.name}` : entry.name;
    return entry.isDirectory() ? sourceFiles(root, path) : [path];
  });
}

export function recordSources(root: string): Plugin {
  return {
    name: "record-sources",
    apply: "build",
    generateBundle() {
      const source = `${JSON.stringify({ sources_sha256: hashSources(root) })}\n`;
      this.emitFile({ type: "asset", fileName: "build.json", source });
    },
  };
}

export function thirdPartyLicences(root: string): Plugin {
  return {
    name: "third-party-licences",
    apply: "build",
    generateBundle() {
      const texts = BUNDLED.map((name) => {
        const licence = readFileSync(join(root, "node_modules", name, "LICENSE"), "utf8");
        return `${name}\n${"=".repeat(name.length)}\n\n${licence.trim()}\n`;
      });
      this.emitFile({ type: "asset", fileName: "THIRD_PARTY_LICENSES.txt", source: texts.join("\n\n") });
    },
  };
}
