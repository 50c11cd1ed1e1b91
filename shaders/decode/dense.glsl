// The vector of a product with rows of floats, in shared memory, and the rows in pieces of 8.
const uint blocks = width / 8;
shared vec4 kept[2 * blocks];
void keep(uint c, float x[8]) {
  kept[c] = vec4(x[0], x[1], x[2], x[3]);
  kept[blocks + c] = vec4(x[4], x[5], x[6], x[7]);
}
struct Matrix { Quads weights; };
Piece held[ahead * count];
void fetch(uint slot, uint r, Matrix m, uint row, uint block) { held[slot * count + r] = pieceAt(m.weights, row * blocks + block); }
struct Part { vec4 low; vec4 high; };
Part partOf(uint block) { return Part(kept[block], kept[blocks + block]); }
float product(uint slot, uint r, Part x) {
  const float w[8] = floatsOf(held[slot * count + r]);
  return dot(x.low, vec4(w[0], w[1], w[2], w[3])) + dot(x.high, vec4(w[4], w[5], w[6], w[7]));
}
