/** The command line, run as users run it. */
import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { describe, expect, test } from "vitest";
import { core as mx } from "../src/index.ts";
import { chooseTestDevice } from "./helpers/gpu-scheduler.ts";
import { arch, temporaryFolder, values, variant } from "./helpers/llm.ts";
import { skipReason } from "./helpers/vulkan.ts";

/** tsx by its place, so that it is found from any folder. */
const loader = pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href;

interface Outcome {
  code: number | null;
  stdout: string;
  stderr: string;
}
function mlxVk(args: readonly string[], options: { input?: string; onOutput?: (text: string, interrupt: () => void) => void; cwd?: string; env?: Record<string, string> } = {}): Promise<Outcome> {
  const root = process.cwd();
  const child = spawn(process.execPath, ["--import", loader, `${root}/src/cli/main.ts`, ...args], { cwd: options.cwd ?? root, env: { ...process.env, ...options.env } });
  const out: Outcome = { code: null, stdout: "", stderr: "" };
  child.stdout.on("data", (data: Buffer) => {
    out.stdout += data.toString();
    options.onOutput?.(out.stdout, () => child.kill("SIGINT"));
  });
  child.stderr.on("data", (data: Buffer) => void (out.stderr += data.toString()));
  child.stdin.end(options.input ?? "");
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve({ ...out, code }));
  });
}
const lastLine = (text: string): string => text.trimEnd().split("\n").at(-1) as string;

describe("generate", () => {
  test("is the default command, runs the shipped model, and ends with the statistics", async () => {
    const { code, stdout, stderr } = await mlxVk(["--prompt", "ROMEO:", "--max-tokens", "20"]);
    expect(stderr).toBe("");
    expect(code).toBe(0);
    const number = String.raw`\d+\.\d{3}`;
    expect(stdout).toMatch(
      new RegExp(
        `^==========\\n[\\s\\S]{10,}\\n==========\\nPrompt: \\d+ tokens, ${number} tokens-per-sec\\nGeneration: 20 tokens, ${number} tokens-per-sec\\nPeak memory: ${number} GB\\nDevice: cpu\\n$`,
      ),
    );
  });
  test("--json with --prompt-ids: the golden tokens", async () => {
    const golden = mx.load("test/fixtures/demo-4bit/golden.safetensors") as Record<string, mx.MxArray>;
    const ids = values(golden["prompt0.ids"] as mx.MxArray);
    const { code, stdout } = await mlxVk(["generate", "--prompt-ids", ids.join(","), "--max-tokens", "48", "--dtype", "float32", "--json"]);
    expect(code).toBe(0);
    const result = JSON.parse(lastLine(stdout)) as Record<string, unknown>;
    expect(Object.keys(result).sort()).toEqual(["device", "finishReason", "generationTokens", "generationTps", "peakMemory", "promptTokens", "promptTps", "text", "tokens"]);
    expect(result.tokens).toEqual(values(golden["prompt0.greedy"] as mx.MxArray));
    expect([result.promptTokens, result.generationTokens, result.finishReason]).toEqual([ids.length, 48, "length"]);
  });
  test("the chat template is used unless told otherwise, and a system prompt goes into it", async () => {
    const count = async (...more: string[]): Promise<number> => {
      const { stdout } = await mlxVk(["--prompt", "Speak.", "--max-tokens", "1", "--json", ...more]);
      return (JSON.parse(lastLine(stdout)) as { promptTokens: number }).promptTokens;
    };
    const [plain, template, system] = await Promise.all([count("--ignore-chat-template"), count(), count("--system-prompt", "Be brief.")]);
    expect(plain).toBeLessThan(template as number);
    expect(template).toBeLessThan(system as number);
  });
  test("a seed repeats a sample; the prompt may come from standard input", async () => {
    const sample = async (seed: string): Promise<number[]> => {
      const { stdout } = await mlxVk(["--prompt", "-", "--temp", "1", "--top-p", "0.95", "--top-k", "50", "--min-p", "0.01", "--seed", seed, "--max-tokens", "12", "--json"], {
        input: "JULIET:",
      });
      return (JSON.parse(lastLine(stdout)) as { tokens: number[] }).tokens;
    };
    const [a, b, c] = await Promise.all([sample("1"), sample("1"), sample("2")]);
    expect(a).toEqual(b);
    expect(a).not.toEqual(c);
  });
  test("a model without a tokenizer prints token ids", async () => {
    const { code, stdout } = await mlxVk(["--model", arch("llama"), "--prompt-ids", "1,2,3", "--max-tokens", "4"]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^==========\n\d+(,\d+){0,3}\n==========\n/);
  });
  test("Ctrl-C stops cleanly with what there is", async () => {
    let sent = false;
    const { code, stdout } = await mlxVk(["--prompt", "ROMEO:", "--max-tokens", "1000", "--ignore-chat-template"], {
      onOutput: (text, interrupt) => {
        if (!sent && text.length > 30) {
          sent = true;
          interrupt();
        }
      },
    });
    expect(code).toBe(130);
    expect(stdout).toMatch(/\n==========\nPrompt: \d+ tokens.*\nGeneration: \d+ tokens.*\nPeak memory: .* GB\nDevice: cpu\n$/);
  });

  test.each([
    ["no prompt", [], /give a prompt with --prompt/],
    ["an empty prompt", ["--prompt", ""], /the prompt is empty/],
    ["no ids", ["--prompt-ids", ""], /the prompt is empty/],
    ["wrong ids", ["--prompt-ids", "1,x"], /token ids such as 1,2,3/],
    ["ids outside the vocabulary", ["--prompt-ids", "5000"], /5000 is outside the model's vocabulary of 1024/],
    ["a folder that is not there", ["--model", "./nowhere/at/all", "--prompt", "x"], /no folder .\/nowhere\/at\/all/],
    ["an unknown dtype", ["--dtype", "int3", "--prompt", "x"], /dtype must be one of/],
    ["a wrong number", ["--temp", "hot", "--prompt", "x"], /must be a number/],
    ["a context that is too long", ["--prompt-ids", new Array(1100).fill(5).join(",")], /prompt has 1100 tokens, but the model's context holds 1024/],
    ["a prompt in words for a model without a tokenizer", ["--model", arch("llama"), "--prompt", "x"], /no tokenizer/],
    ["an unknown option", ["--prompt", "x", "--frobnicate"], /unknown option '--frobnicate'/],
  ])("%s: one line on standard error, exit code 1", async (_name, args, message) => {
    const { code, stderr } = await mlxVk(args);
    expect(code).toBe(1);
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/\n\s+at /);
  });
  test("--verbose shows where an error comes from", async () => {
    const folder = variant(arch("llama"), (c) => void delete c.vocab_size);
    const { stderr } = await mlxVk(["--model", folder, "--prompt-ids", "1", "--verbose"]);
    expect(stderr).toMatch(/lacks the key "vocab_size"[\s\S]*\n\s+at /);
  });
});

test("chat answers line by line until q", async () => {
  const { code, stdout, stderr } = await mlxVk(["chat", "--max-tokens", "8"], { input: "Speak.\nh\nAnd now?\nq\n" });
  expect(stderr).toBe("");
  expect(code).toBe(0);
  expect(stdout.match(/>> /g)?.length).toBe(4);
  expect(stdout.match(/Commands: q quits/g)).toHaveLength(2);
});

/** No driver, whatever the machine has. */
const noDriver = { VK_DRIVER_FILES: "/nonexistent", VK_ICD_FILENAMES: "/nonexistent" };

test("info shows threads, memory, and why there is no GPU", async () => {
  const { code, stdout } = await mlxVk(["info"], { env: noDriver });
  expect(code).toBe(0);
  for (const row of [/^Node: +\d+/m, /threads used/, /^Kernels: +(plain|relaxed) SIMD/m, /^Vector pairs: +(on|off) \(.+\)$/m, /^Backend cpu: +available$/m, /^Backend gpu: +not available: .+; .+/m, /^GPU: +none, (addon built|no addon): .+; .+/m])
    expect(stdout).toMatch(row);
  const json = JSON.parse((await mlxVk(["info", "--json"], { env: noDriver })).stdout) as { threads: number; vulkan: { addon: boolean; reason: string } };
  expect(json.threads).toBeGreaterThan(0);
  expect(json.vulkan).toEqual({ addon: expect.any(Boolean), reason: expect.stringMatching(/;/) });
});

test("DEVICE=gpu without a driver is an error with a remedy, for generate and bench", async () => {
  for (const args of [["--prompt", "x"], ["bench", "--model", "models/demo-shakespeare-4bit"]]) {
    const { code, stdout, stderr } = await mlxVk(args, { env: { ...noDriver, DEVICE: "gpu" } });
    expect([code, stdout]).toEqual([1, ""]);
    expect(stderr).toMatch(/^mlx-vk: \[device\] the gpu device is not available: (the Vulkan loader finds no driver|no Vulkan loader is installed|the Vulkan addon .*); .+\n$/);
  }
});

describe.skipIf(skipReason)("with a Vulkan device", () => {
  const device = (): Record<string, string> => {
    chooseTestDevice();
    return { DEVICE: "gpu", MLX_VK_SELF_CHECK: "0" };
  };
  test("info describes it in one line", async () => {
    const env = device();
    expect((await mlxVk(["info"], { env })).stdout).toMatch(/^GPU: +\S.*, driver .+, Vulkan 1\.\d+\.\d+, \d+\.\d GiB, subgroups of \d+, cooperative matrix (yes|no), addon built$/m);
    const { vulkan } = JSON.parse((await mlxVk(["info", "--json"], { env })).stdout) as { vulkan: Record<string, unknown> };
    expect(Object.keys(vulkan).sort()).toEqual(["addon", "api", "cooperativeMatrix", "device", "driver", "memory", "subgroupSize"]);
    expect(vulkan.memory).toBeGreaterThan(2 ** 28);
  });
  test("generate tells which device ran", { timeout: 180_000 }, async () => {
    const { stdout, code } = await mlxVk(["--prompt", "ROMEO:", "--max-tokens", "3"], { env: { ...device(), MLX_STRICT: "1" } });
    expect(code).toBe(0);
    expect(stdout).toMatch(/\nDevice: gpu \(.+\)\n$/);
  });
});

test("bench measures a model", async () => {
  const { code, stdout } = await mlxVk(["bench", "--model", "models/demo-shakespeare-4bit", "--prompt-tokens", "8", "--max-tokens", "4", "--runs", "1", "--json"]);
  expect(code).toBe(0);
  const result = JSON.parse(lastLine(stdout)) as Record<string, number>;
  expect([result.promptTokens, result.generationTokens]).toEqual([8, 4]);
  expect(result.promptTps).toBeGreaterThan(0);
  expect(result.generationTps).toBeGreaterThan(0);
});

test("finds its model from another folder, and tells its version", async () => {
  const cwd = temporaryFolder();
  const { code, stdout } = await mlxVk(["--prompt", "ROMEO:", "--max-tokens", "2", "--json"], { cwd });
  expect(code).toBe(0);
  expect(JSON.parse(lastLine(stdout))).toMatchObject({ generationTokens: 2 });
  expect((await mlxVk(["--version"], { cwd })).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
});
