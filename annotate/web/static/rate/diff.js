// What two lists have in common, by Myers' algorithm in linear space ("An O(ND) Difference Algorithm and Its Variations",
// 1986): the fewest insertions and deletions. Where lists differ so much that this would take long, a good way is taken
// instead of the best one, as git does.

const ENOUGH = 500; // edits from either end, after which a split is taken as it is

// The pairs [i, j] with one[i] === other[j], in order.
export function common(one, other) {
  const ids = new Map();
  const numbered = (list) => Int32Array.from(list, (value) => ids.get(value) ?? (ids.set(value, ids.size), ids.size - 1));
  const found = [];
  align(numbered(one), numbered(other), 0, 0, found);
  return found;
}

// `a` and `b` begin at (x, y) of the whole lists.
function align(a, b, x, y, found) {
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) {
    found.push([x + start, y + start]);
    start++;
  }
  let [endA, endB] = [a.length, b.length];
  while (endA > start && endB > start && a[endA - 1] === b[endB - 1]) {
    endA--;
    endB--;
  }
  if (endA > start && endB > start) {
    const [left, right] = [a.subarray(start, endA), b.subarray(start, endB)];
    const [splitA, splitB] = middle(left, right);
    align(left.subarray(0, splitA), right.subarray(0, splitB), x + start, y + start, found);
    align(left.subarray(splitA), right.subarray(splitB), x + start + splitA, y + start + splitB, found);
  }
  for (let index = 0; endA + index < a.length; index++) found.push([x + endA + index, y + endB + index]);
}

// A point that a shortest way from (0, 0) to the ends passes: where ways from both ends meet. Both lists are longer than 0
// and neither begin nor end alike, so that it lies strictly between.
function middle(a, b) {
  const [n, m] = [a.length, b.length];
  const ahead = (x, y) => a[x] === b[y];
  const behind = (x, y) => a[n - 1 - x] === b[m - 1 - y];
  const from = new Int32Array(2 * (ENOUGH + 2) + 1).fill(-1); // furthest x on each diagonal x - y, from the beginning
  const to = from.slice(); // and from the end
  const zero = ENOUGH + 2;
  from[zero] = to[zero] = 0;
  for (let edits = 1; edits <= ENOUGH; edits++) {
    for (const [way, same, others] of [[from, ahead, to], [to, behind, from]]) {
      for (let k = -edits; k <= edits; k += 2) {
        const right = way[zero + k - 1] >= 0 && way[zero + k - 1] < n ? way[zero + k - 1] + 1 : -1;
        const down = way[zero + k + 1] >= 0 && way[zero + k + 1] - k <= m ? way[zero + k + 1] : -1;
        let reached = Math.max(right, down);
        if (reached >= 0) while (reached < n && reached - k < m && same(reached, reached - k)) reached++;
        way[zero + k] = reached;
        const met = others[zero + n - m - k] ?? -1; // on the same diagonal, from the other end
        if (reached >= 0 && met >= 0 && reached + met >= n) {
          return way === from ? [reached, reached - k] : [n - reached, m - reached + k];
        }
      }
    }
  }
  let best = [1, 0];
  for (let k = -ENOUGH; k <= ENOUGH; k++) {
    const reached = from[zero + k];
    if (reached >= 0 && 2 * reached - k > best[0] + best[1]) best = [reached, reached - k];
  }
  return best;
}
