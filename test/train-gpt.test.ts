/** examples/train-gpt, run as users run it: it learns, goes on where it stopped, and what it exports is a model that the command line generates from. */
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { loadCheckpoint } from "../examples/train-gpt/checkpoint.ts";
import { GPT } from "../examples/train-gpt/model.ts";
import { readText } from "../examples/train-gpt/text.ts";
import { keyOfStep, makeOptimizer, makeStep, stateOf } from "../examples/train-gpt/train.ts";
import { core as mx, nn } from "../src/index.ts";
import { load } from "../src/llm/index.ts";
import { chooseTestDevice } from "./helpers/gpu-scheduler.ts";
import { skipReason } from "./helpers/vulkan.ts";

const text = "examples/train-gpt/sonnets.txt";
const sizes = "--width 32 --layers 1 --heads 2 --context 16 --batch 4 --sample-length 8 --warmup 4 --learning-rate 0.01".split(" ");
const folder = mkdtempSync(join(tmpdir(), "mlx-train-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function node(script: string, args: readonly string[], env: Record<string, string> = {}): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const child = spawn(process.execPath, ["--import", "tsx", script, ...args], { env: { ...process.env, ...env } });
  const out = { stdout: "", stderr: "" };
  child.stdout.on("data", (d: Buffer) => void (out.stdout += d.toString()));
  child.stderr.on("data", (d: Buffer) => void (out.stderr += d.toString()));
  child.stdin.end();
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve({ ...out, code }));
  });
}
const train = (args: readonly string[], env?: Record<string, string>) => node("examples/train-gpt/main.ts", args, env);
/** GPUs add the gradients of an embedding's rows up in any order, so only the CPU repeats a run bit for bit. */
const onCpu = { DEVICE: "cpu" };
/** [training, validation] of each line that gives them. */
const losses = (stdout: string): [number, number][] => [...stdout.matchAll(/training loss ([\d.]+), validation loss ([\d.]+)/g)].map((m) => [Number(m[1]), Number(m[2])]);

describe("a small run", () => {
  const out = join(folder, "run");
  let stdout = "";
  beforeAll(async () => {
    const done = await train([text, ...sizes, "--out", out, "--steps", "60", "--evaluate-every", "30", "--checkpoint-every", "30"], onCpu);
    expect(done.stderr).toBe("");
    expect(done.code).toBe(0);
    stdout = done.stdout;
  });

  test("the losses fall from those of guessing to below those of single characters' frequencies", () => {
    const all = losses(stdout);
    expect(all.length).toBe(2);
    // Guessing costs ln 60 = 4.1, the frequencies of single characters 3.1. Measured after 60 steps: 2.7 to 2.8.
    const [training, validation] = all[1] as [number, number];
    expect(training).toBeLessThan(3.1);
    expect(validation).toBeLessThan(3.1);
  });
  test("a resumed run ends with the same bits as one that did not stop", async () => {
    const again = join(folder, "again");
    const done = await train([text, "--out", again, "--resume", join(out, "step-000030"), "--evaluate-every", "30", "--sample-length", "8"], onCpu);
    expect(done.code).toBe(0);
    expect(losses(done.stdout)).toEqual(losses(stdout).slice(1));
    for (const name of ["model.safetensors", "optimizer.safetensors"]) {
      const [a, b] = [out, again].map((o) => mx.load(join(o, "step-000060", name)) as Record<string, mx.MxArray>) as [Record<string, mx.MxArray>, Record<string, mx.MxArray>];
      expect(Object.keys(b).sort()).toEqual(Object.keys(a).sort());
      for (const [key, value] of Object.entries(a)) expect(mx.arrayEqual(value, b[key] as mx.MxArray).item(), key).toBe(true);
    }
    expect(readdirSync(again).sort()).toEqual(["model-4bit", "step-000060"]);
  });
  test("the exported model is 4 bits wide, has a character tokenizer, and gives the validation loss that was printed", async () => {
    const { model, tokenizer, config } = await load(join(out, "model-4bit"));
    expect(config.quantization).toMatchObject({ bits: 4, group_size: 32 });
    expect(String((model.parameters() as { model: { layers: { mlp: { upProj: { weight: mx.MxArray } } }[] } }).model.layers[0]?.mlp.upProj.weight.dtype)).toBe("uint32");
    const whole = readFileSync(text, "utf8");
    const ids = tokenizer?.encode(whole) as number[];
    expect(ids.length).toBe(whole.length);
    expect(tokenizer?.decode(ids)).toBe(whole);
    expect(tokenizer?.encode("a\u00df")).toEqual([tokenizer?.encode("a")[0], 0]);
    // The last tenth in pieces of 17 that overlap by one.
    const rest = ids.slice(Math.floor(ids.length * 0.9));
    const count = Math.floor((rest.length - 1) / 16);
    const pieces = mx.array(Int32Array.from({ length: count * 17 }, (_, i) => rest[Math.floor(i / 17) * 16 + (i % 17)] as number)).reshape([count, 17]);
    const logits = model.forward(pieces.index(mx.Slice(), mx.Slice(0, 16)));
    const loss = nn.losses.crossEntropy(logits, pieces.index(mx.Slice(), mx.Slice(1)), undefined, -1, 0, "mean").item() as number;
    // Printed with four digits.
    expect(loss).toBeCloseTo(Number(/quantized to 4 bits: validation loss ([\d.]+)/.exec(stdout)?.[1]), 3);
  });
  test("the command line generates from it", async () => {
    expect(stdout).toMatch(/\$ mlx-vk generate --model .*model-4bit --prompt "When "[\s\S]*Generation: \d+ tokens/);
    const done = await node("src/cli/main.ts", ["generate", "--model", join(out, "model-4bit"), "--prompt", "When ", "--max-tokens", "10", "--json"]);
    expect(done.code).toBe(0);
    const result = JSON.parse(done.stdout.trimEnd().split("\n").at(-1) as string) as { text: string; promptTokens: number; generationTokens: number };
    expect([result.promptTokens, result.generationTokens, [...result.text].length]).toEqual([5, 10, 10]);
  });
});

describe("errors name what is wrong", () => {
  const short = join(folder, "short.txt");
  const broken = join(folder, "broken");
  writeFileSync(short, "too short.");
  test("in one line on standard error, with exit code 1", async () => {
    const { code, stderr } = await train(["no-such-file.txt"]);
    expect(stderr).toBe("train-gpt: there is no file no-such-file.txt\n");
    expect(code).toBe(1);
  });
  test("texts that can not be used", () => {
    expect(() => readText(short, 128)).toThrow(/too short.*at least 129 characters.*got 10/);
    expect(() => readText(folder, 128)).toThrow(/is a folder/);
  });
  test("folders that are no checkpoints", () => {
    expect(() => loadCheckpoint(join(folder, "none"))).toThrow(/there is no folder/);
    expect(() => loadCheckpoint(folder)).toThrow(/holds no checkpoint/);
    mkdirSync(broken);
    writeFileSync(join(broken, "run.json"), "{");
    expect(() => loadCheckpoint(broken)).toThrow(/lacks model\.safetensors, optimizer\.safetensors/);
    for (const name of ["model.safetensors", "optimizer.safetensors"]) mx.saveSafetensors(join(broken, name), {});
    expect(() => loadCheckpoint(broken)).toThrow(/can not read .*run\.json/);
  });
});

describe.skipIf(skipReason !== undefined)(`on the GPU${skipReason ? ` (skipped: ${skipReason})` : ""}`, () => {
  test("the same losses as on the CPU", () => {
    chooseTestDevice();
    const training = { batch: 2, context: 8, learningRate: 0.01, warmup: 1, steps: 4, seed: 1 };
    const steps = (device: typeof mx.cpu): number[] => {
      using _ = mx.stream(device);
      mx.random.seed(1);
      const words = readText(text, training.context);
      const model = new GPT({ vocabulary: words.characters.length, width: 32, layers: 1, heads: 2, context: training.context });
      const optimizer = makeOptimizer(training);
      optimizer.init(model.trainableParameters());
      let state = stateOf(model, optimizer);
      const step = makeStep(model, optimizer, words, training);
      return Array.from({ length: 3 }, (_, i) => {
        const [loss, , next] = step(state, keyOfStep(training.seed, i));
        state = next;
        return loss.item() as number;
      });
    };
    const [cpu, gpu] = [steps(mx.cpu), steps(mx.gpu)];
    expect(new Set(cpu).size).toBe(3);
    // Float32 sums in another order differ by 1e-6; Adam's first steps divide gradients by their own size, which makes 1e-4 of that where a gradient is nearly 0.
    for (const [i, loss] of cpu.entries()) expect(Math.abs((gpu[i] as number) - loss)).toBeLessThan(2e-3);
  });
});
