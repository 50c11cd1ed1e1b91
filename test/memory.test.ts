/** Memory over a long run. */
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { asIfUnset } from "./helpers/flags.ts";

// Arrays of this size take minutes where the host interprets elementwise ops.
asIfUnset("MLX_DISABLE");

const script = fileURLToPath(new URL("helpers/decode-memory.ts", import.meta.url));

it("10,000 generated tokens at a fixed context keep memory flat", () => {
  // A young generation of fixed size: V8 enlarges it at a time of its own choosing, by up to 34 MB, which is no growth of ours.
  const text = execFileSync(process.execPath, ["--expose-gc", "--max-semi-space-size=1", "--import", "tsx", script], { encoding: "utf8" });
  const grown = JSON.parse(text.trim().split("\n").at(-1) as string) as { made: number; rss: number; heap: number; arrays: number };
  expect(grown.made).toBeGreaterThanOrEqual(22_000);
  expect(grown.arrays).toBeLessThanOrEqual(0);
  expect(grown.heap).toBeLessThan(3e6);
  expect(grown.rss).toBeLessThan(20e6);
}, 180_000);
