// Stable merging in shared memory. A workgroup has `block` keys (with PAIRS each with an index), every invocation `own` of them.
// Merge path: Green, McColl, Bader, "GPU Merge Path" (2012).
#extension GL_EXT_control_flow_attributes : require
const uint lanes = 256;
const uint own = 8;
const uint block = lanes * own;
layout(local_size_x = 256) in;

// A gap after every 32 keys puts the first keys of neighbouring invocations into different banks.
#define spot(i) ((i) + ((i) >> 5))
shared Key keys[block + block / 32u];
#ifdef PAIRS
shared uint ids[block + block / 32u];
#endif
Key mine[own];
#ifdef PAIRS
uint myIds[own];
#endif

void putMine() {
  const uint first = gl_LocalInvocationIndex * own;
  [[unroll]] for (uint k = 0; k < own; k++) {
    keys[spot(first + k)] = mine[k];
#ifdef PAIRS
    ids[spot(first + k)] = myIds[k];
#endif
  }
}

// Elements `at` .. at + own - 1 of the merge of the runs that begin at a and b, into `mine`. Equal keys come from the first run first.
void mergeMine(uint a, uint countA, uint b, uint countB, uint at) {
  uint low = at > countB ? at - countB : 0u;
  uint high = min(at, countA);
  while (low < high) {
    const uint middle = (low + high) / 2u;
    if (above(keys[spot(a + middle)], keys[spot(b + at - 1u - middle)])) high = middle;
    else low = middle + 1u;
  }
  uint i = a + low;
  uint j = b + at - low;
  const uint endA = a + countA;
  const uint endB = b + countB;
  Key x = i < endA ? keys[spot(i)] : lastKey;
  Key y = j < endB ? keys[spot(j)] : lastKey;
  [[unroll]] for (uint k = 0; k < own; k++) {
    const bool second = i >= endA || (j < endB && above(x, y));
    if (second) {
      mine[k] = y;
#ifdef PAIRS
      myIds[k] = j < endB ? ids[spot(j)] : 0u;
#endif
      j++;
      y = j < endB ? keys[spot(j)] : lastKey;
    } else {
      mine[k] = x;
#ifdef PAIRS
      myIds[k] = ids[spot(i)];
#endif
      i++;
      x = i < endA ? keys[spot(i)] : lastKey;
    }
  }
}
