/** Streaming detokenization: the pieces put together are the decoded text, and no piece holds a part of a character. */
import { describe, expect, test } from "vitest";
import { makeDetokenizer, type StreamingDetokenizer, type TokenSource } from "../src/llm/detokenizer.ts";
import { loadTokenizer, type Tokenizer } from "../src/llm/tokenizer.ts";

const demo = (await loadTokenizer("models/demo-shakespeare-4bit")) as Tokenizer;

/** Numbers in [0, 1) that repeat (mulberry32). */
function randomFrom(seed: number): () => number {
  let s = seed;
  return () => {
    s = (s + 0x6d2b79f5) | 0;
    let t = Math.imul(s ^ (s >>> 15), 1 | s);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
const alphabet = ["a", "B", " ", "\n", "é", "ß", "Ω", "中", "文", "한", "😀", "👩‍👩‍👧", "🇩🇪", "\u0301", "\ufeff", "𝒳", "<|im_start|>", "."];
const randomText = (random: () => number): string =>
  Array.from({ length: 1 + Math.floor(random() * 30) }, () => alphabet[Math.floor(random() * alphabet.length)])
    .join("")
    .normalize("NFC");

/** Pieces as they come, one per token and one at the end. */
function stream(detokenizer: StreamingDetokenizer, ids: readonly number[]): string[] {
  const pieces = ids.map((id) => {
    detokenizer.addToken(id);
    return detokenizer.lastSegment;
  });
  detokenizer.finalize();
  return [...pieces, detokenizer.lastSegment];
}
const wholeCharacters = (piece: string): boolean => !piece.includes("\ufffd") && !/^[\udc00-\udfff]|[\ud800-\udbff]$/.test(piece);

describe("byte-level BPE", () => {
  test("200 random texts come out whole, in whole characters", () => {
    const random = randomFrom(1);
    for (let i = 0; i < 200; i++) {
      const text = randomText(random);
      const ids = demo.encode(text);
      const detokenizer = demo.makeDetokenizer();
      const pieces = stream(detokenizer, ids);
      expect(pieces.join("")).toBe(text);
      expect(pieces.every(wholeCharacters)).toBe(true);
      expect(detokenizer.text).toBe(demo.decode(ids));
    }
  });
  test("a character of several tokens is held back until it is complete", () => {
    const ids = demo.encode("😀");
    expect(ids.length).toBeGreaterThan(1);
    const pieces = stream(demo.makeDetokenizer(), ids);
    expect(pieces.slice(0, ids.length - 1).join("")).toBe("");
    expect(pieces[ids.length - 1]).toBe("😀");
  });
  test("a text that ends inside a character ends with a replacement character", () => {
    const pieces = stream(demo.makeDetokenizer(), demo.encode("x😀").slice(0, -1));
    expect(pieces.join("")).toBe("x\ufffd");
  });
  test("random ids give what decoding them at once gives", () => {
    const random = randomFrom(2);
    for (let i = 0; i < 100; i++) {
      const ids = Array.from({ length: 20 }, () => Math.floor(random() * 1024));
      expect(stream(demo.makeDetokenizer(), ids).join("")).toBe(demo.decode(ids));
    }
  });
  test("reset starts a new text", () => {
    const detokenizer = demo.makeDetokenizer();
    stream(detokenizer, demo.encode("first"));
    detokenizer.reset();
    expect(stream(detokenizer, demo.encode("second")).join("")).toBe("second");
  });
  test("a token costs the same in a long text", () => {
    const detokenizer = demo.makeDetokenizer();
    const ids = demo.encode("What shall we do, ");
    const tenThousand = (): number => {
      const start = performance.now();
      for (let i = 0; i < 10_000; i++) {
        detokenizer.addToken(ids[i % ids.length] as number);
        void detokenizer.lastSegment;
      }
      return performance.now() - start;
    };
    tenThousand();
    const early = Math.min(tenThousand(), tenThousand());
    for (let i = 0; i < 20; i++) tenThousand();
    const late = Math.min(tenThousand(), tenThousand());
    expect(late).toBeLessThan(20 * early + 20);
  });
});

/** A vocabulary as SentencePiece makes it: spaces as U+2581, single bytes for what has no token. */
function sentencePiece(): TokenSource & { encode(text: string): number[] } {
  const tokens = ["<s>", ...Array.from({ length: 256 }, (_, b) => `<0x${b.toString(16).toUpperCase().padStart(2, "0")}>`), "▁", "▁a", "a", "B", "é", "中", "▁."];
  const idOf = new Map(tokens.map((t, i) => [t, i]));
  return {
    idToToken: (id) => tokens[id],
    isAddedToken: (id) => id === 0,
    decode: () => {
      throw new Error("not needed");
    },
    encode(text) {
      const ids: number[] = [];
      for (const c of `▁${text.replaceAll(" ", "▁")}`) {
        const id = idOf.get(c);
        if (id === undefined) for (const b of Buffer.from(c)) ids.push(1 + b);
        else ids.push(id);
      }
      return ids;
    },
  };
}

describe("SentencePiece", () => {
  const decoder = {
    type: "Sequence",
    decoders: [{ type: "Replace", pattern: { String: "▁" }, content: " " }, { type: "ByteFallback" }, { type: "Fuse" }, { type: "Strip", content: " ", start: 1, stop: 0 }],
  };
  test("random texts come out whole, without the space put in front", () => {
    const source = sentencePiece();
    const make = makeDetokenizer(source, decoder);
    const random = randomFrom(3);
    for (let i = 0; i < 200; i++) {
      const text = randomText(random);
      const pieces = stream(make(), source.encode(text));
      expect(pieces.join("")).toBe(text);
      expect(pieces.every(wholeCharacters)).toBe(true);
    }
  });
  test("a Metaspace decoder that never prepends keeps the first space", () => {
    const source = sentencePiece();
    const make = makeDetokenizer(source, { type: "Metaspace", prepend_scheme: "never" });
    expect(stream(make(), source.encode("a")).join("")).toBe(" a");
  });
});

test("other decoders: pieces put together are the decoded text", () => {
  const words = ["un", "##believ", "##able", "story", "中", "文"];
  const source: TokenSource = {
    idToToken: (id) => words[id],
    isAddedToken: () => false,
    decode: (ids) =>
      ids
        .map((id) => words[id] as string)
        .join(" ")
        .replaceAll(" ##", ""),
  };
  const ids = [0, 1, 2, 3, 4, 5];
  const detokenizer = makeDetokenizer(source, { type: "WordPiece" })();
  expect(stream(detokenizer, ids).join("")).toBe("unbelievable story 中 文");
});
