/** Tables in README.md that come from the code. `UPDATE_DOCS=1 npx vitest run --config test/vitest.config.ts test/docs.test.ts` writes them. */
import { readFileSync, writeFileSync } from "node:fs";
import { expect, it } from "vitest";
import { flags } from "../src/core/env.ts";

const readme = new URL("../README.md", import.meta.url);

function flagTable(): string {
  const rows = Object.entries(flags).map(([name, f]) => `| \`${name}\` | ${f.type === "boolean" ? (f.default ? "1" : "0") : f.default === "" ? "" : String(f.default)} | ${f.doc} |`);
  return ["| variable | default | meaning |", "|---|---|---|", ...rows].join("\n");
}

it("README's table of environment variables is that of core/env.ts", () => {
  const text = readFileSync(readme, "utf8");
  const wanted = text.replace(/(<!-- flags:begin -->)[\s\S]*(<!-- flags:end -->)/, (_, begin: string, end: string) => `${begin}\n${flagTable()}\n${end}`);
  if (process.env["UPDATE_DOCS"]) writeFileSync(readme, wanted);
  else expect(text).toBe(wanted);
});
