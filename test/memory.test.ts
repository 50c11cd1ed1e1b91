/** Memory over a long run. */
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";

const script = fileURLToPath(new URL("helpers/decode-memory.ts", import.meta.url));

it("10,000 generated tokens at a fixed context keep memory flat", () => {
  const text = execFileSync(process.execPath, ["--expose-gc", "--import", "tsx", script], { encoding: "utf8" });
  const grown = JSON.parse(text.trim().split("\n").at(-1) as string) as { made: number; rss: number; heap: number; arrays: number };
  expect(grown.made).toBeGreaterThanOrEqual(22_000);
  expect(grown.arrays).toBeLessThanOrEqual(0);
  expect(grown.heap).toBeLessThan(3e6);
  expect(grown.rss).toBeLessThan(20e6);
}, 180_000);
