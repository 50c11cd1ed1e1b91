/**
 * Bundles what ships into dist/: ESM and CommonJS entries, the CLI, type declarations and the licences of bundled packages. Run by `npm run build`,
 * after `npm run gen` has embedded the kernels and the worker.
 */
import { execFileSync } from "node:child_process";
import { chmodSync, existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { type BuildOptions, type Metafile, build } from "esbuild";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const dist = join(root, "dist");
const common: BuildOptions = { bundle: true, platform: "node", target: "node20", metafile: true, logLevel: "warning", absWorkingDir: root, legalComments: "none", minifySyntax: true };

/** Licence texts of the packages whose code is inside the bundles. */
function thirdPartyLicences(metafiles: readonly Metafile[]): string {
  const names = new Set<string>();
  for (const m of metafiles) {
    for (const input of Object.keys(m.inputs)) {
      const match = /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input);
      if (match?.[1]) names.add(match[1]);
    }
  }
  return [...names].sort().map((name) => {
    const dir = join(root, "node_modules", name);
    const { version, license } = JSON.parse(readFileSync(join(dir, "package.json"), "utf8")) as { version: string; license: string };
    const file = ["LICENSE", "LICENSE.md", "LICENSE.txt", "license", "LICENCE"].map((f) => join(dir, f)).find(existsSync);
    return `${name} ${version} (${license})\n\n${file ? readFileSync(file, "utf8").trim() : "See the package's repository for the licence text."}\n`;
  }).join(`\n${"-".repeat(80)}\n\n`);
}

async function main(): Promise<void> {
  rmSync(dist, { recursive: true, force: true });
  const esm = await build({
    ...common, format: "esm", outdir: dist, splitting: true, chunkNames: "chunks/[name]-[hash]",
    entryPoints: { index: "src/index.ts", llm: "src/llm/index.ts", cli: "src/cli/main.ts" },
    banner: { js: 'import { createRequire as __createRequire } from "node:module"; const require = __createRequire(import.meta.url);' },
  });
  const cjs = await build({
    ...common, format: "cjs", outfile: join(dist, "index.cjs"), entryPoints: ["src/cjs.ts"],
    define: { "import.meta.url": "__moduleUrl" },
    banner: { js: 'const __moduleUrl = require("node:url").pathToFileURL(__filename).href;' },
  });
  writeFileSync(join(dist, "llm.cjs"), 'module.exports = require("./index.cjs").llm;\n');
  writeFileSync(join(dist, "THIRD_PARTY_LICENSES.txt"), thirdPartyLicences([esm.metafile as Metafile, cjs.metafile as Metafile]));
  execFileSync(join(root, "node_modules", ".bin", "tsc"), ["-p", join(root, "src")], { stdio: "inherit" });
  chmodSync(join(dist, "cli.js"), 0o755);
}

await main();
