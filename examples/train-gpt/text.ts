/** Text as numbers: the characters of a file, its two parts, and random pieces of it. */
import { readFileSync } from "node:fs";
import { core as mx, type MxArray } from "mlx-vk";

/** What stands for a character that the training text does not have. It is token 0. */
export const unknown = "\ufffd";

export interface Text {
  /** Characters in the order of their ids. */
  readonly characters: readonly string[];
  /** Ids of the part that is trained on, and of the rest, int32. */
  readonly training: MxArray;
  readonly validation: MxArray;
}

const idsOf = (text: readonly string[], characters: readonly string[]): MxArray => {
  const ids = new Map(characters.map((c, i) => [c, i]));
  return mx.array(Int32Array.from(text, (c) => ids.get(c) ?? 0));
};

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === "ENOENT") throw new Error(`there is no file ${path}`);
    if (code === "EISDIR") throw new Error(`${path} is a folder; give a text file`);
    throw error;
  }
}

/**
 * Reads a UTF-8 file; its last tenth is for validation.
 * @param characters vocabulary of a run that is resumed; without it, the characters of the file
 */
export function readText(path: string, context: number, characters?: readonly string[]): Text {
  const text = [...read(path).replaceAll("\r\n", "\n")];
  const split = Math.floor(text.length * 0.9);
  const least = context + 1;
  if (text.length - split < least) throw new Error(`${path} is too short: a tenth of it must be at least ${least} characters (--context and one), got ${text.length} characters in all`);
  const vocabulary = characters ?? [unknown, ...new Set(text.filter((c) => c !== unknown).sort())];
  const ids = idsOf(text, vocabulary);
  return { characters: vocabulary, training: ids.index(mx.Slice(0, split)), validation: ids.index(mx.Slice(split)) };
}

/** `count` random pieces of `length` ids: (count, length). The key decides which. */
export function randomPieces(ids: MxArray, count: number, length: number, key: MxArray): MxArray {
  const starts = mx.random.randint(0, ids.size - length + 1, [count, 1], mx.int32, key);
  return mx.take(ids, mx.add(starts, mx.arange(0, length, 1, mx.int32)));
}

/** All of the ids in pieces that overlap by one, so that each id but the first is predicted once: (pieces, length). What is left at the end is dropped. */
export function allPieces(ids: MxArray, length: number): MxArray {
  const pieces = Math.floor((ids.size - 1) / (length - 1));
  const starts = mx.arange(0, pieces * (length - 1), length - 1, mx.int32).reshape([pieces, 1]);
  return mx.take(ids, mx.add(starts, mx.arange(0, length, 1, mx.int32)));
}
