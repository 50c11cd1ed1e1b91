// Walks over dimensions with a source, a destination and index arrays that move one of the two. Without TABLE there is one index
// array and the dimensions are in the push constants; with it there are `arrays` of them and the dimensions are in a table. Needs `Source` and `Target`.
#include "indices.glsl"
#ifdef TABLE
layout(constant_id = 0) const uint arrays = 1;
#define MOST_ARRAYS 13
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer Words { int at[]; };
layout(push_constant) uniform Push {
  Source src;
  Target dst;
  // Addresses of the index arrays, then of the table.
  uvec2 places[14];
};
#define word(i) Words(places[arrays]).at[i]
#else
const uint arrays = 1;
#define MOST_ARRAYS 1
layout(push_constant) uniform Push {
  Source src;
  Target dst;
  uvec2 places[1];
  int words[26];
};
#define word(i) words[i]
#endif
// Innermost dimension: size and strides; indices of the outer dimensions; their number, and 256 times the
// destination's element at which the walk begins; `shift` of units.glsl.
#define inner uint(word(0))
#define srcInner word(1)
#define dstInner word(2)
#define rows uint(word(3))
#define rank (uint(word(4)) & 0xffu)
#define firstElement (word(4) >> 8)
#define shift uint(word(5))
// Of each index array: its type, the size of the dimension that it indexes, that dimension's stride, its own stride along the innermost dimension.
#define indexWord(k, i) word(6u + 4u * (k) + (i))
// Of each outer dimension, outermost first: size, source stride, destination stride, stride of each index array.
#define dimWord(d, i) word(6u + 4u * arrays + (3u + arrays) * (d) + (i))

struct Walk {
  int src;
  int dst;
  int indices[MOST_ARRAYS];
};
Walk walkTo(uint row) {
  Walk w;
  w.src = 0;
  w.dst = firstElement;
  for (uint k = 0; k < MOST_ARRAYS; k++) w.indices[k] = 0;
  uint left = row;
  for (uint d = rank; d-- > 0u;) {
    uint at = left;
    if (d > 0u) {
      const uint size = uint(dimWord(d, 0u));
      left = at / size;
      at -= left * size;
    }
    w.src += int(at) * dimWord(d, 1u);
    w.dst += int(at) * dimWord(d, 2u);
    for (uint k = 0; k < arrays; k++) w.indices[k] += int(at) * dimWord(d, 3u + k);
  }
  return w;
}
// How far the index arrays move the side that they index, at place c of the innermost dimension.
int movedBy(Walk w, int c) {
  int by = 0;
  for (uint k = 0; k < arrays; k++) by += indexWord(k, 2u) * wrapIndex(loadIndex(places[k], w.indices[k] + c * indexWord(k, 3u), uint(indexWord(k, 0u))), indexWord(k, 1u));
  return by;
}
