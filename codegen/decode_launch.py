"""The fixed text of the launches over a cache: how many splits, which kernel, the merge."""

from __future__ import annotations

LAUNCH = '''

# Up to so many queries in each residue class every position is a program of its own.
FEW_QUERIES = 16
MOST_SPLITS, MOST_HEADS = 128, 64
# Fewer splits are taken where they cost at most so many times the turns: each split's output is merged.
SPLIT_PRICE = 1.15


@dataclass(frozen=True)
class DecodePart:
    """A part's kernels over a cache, for few and for many queries, and how they are launched.

    `arrays(ranks, device)` are what they read beside the tensors. `classes` are the residue classes that programs for
    many queries divide, `head_kinds` numbers that are equal where heads read the same keys (empty: all do).
    `most_tiles[n]`: about how many tiles of `few_keys` keys a position reads in a cache of 2**n; the last is for all
    longer ones. `few_at_once`: programs for few queries that a multiprocessor is to hold.
    """

    few: Any
    many: Any
    arrays: Callable[[int, torch.device], tuple[Any, ...]]
    block_m: int
    few_keys: int
    many_keys: int
    step: int
    classes: int
    head_kinds: tuple[int, ...]
    most_tiles: tuple[int, ...]
    few_warps: int
    few_at_once: int
    few_stages: int
    many_warps: int

    def heads_together(self, heads: int, group: int) -> int:
        """Query heads that one program takes: those that share a key head, where they read the same keys."""
        kinds = self.head_kinds
        same = not kinds or all(len(set(kinds[first : first + group])) == 1 for first in range(0, heads, group))
        return max(size for size in range(1, MOST_HEADS + 1) if group % size == 0) if same else 1

    def splits(self, programs: int, capacity: int, many: bool, device: torch.device) -> int:
        """Into how many programs the keys of each are split."""
        tiles = max(tiles_in(0, capacity, self.step * self.few_keys), 1)
        if self.most_tiles:
            tiles = min(tiles, self.most_tiles[min((tiles - 1).bit_length(), len(self.most_tiles) - 1)])
        if many:
            there = max(tiles_in(0, capacity, self.step * self.many_keys), 1)
            tiles = min(tiles_in(0, tiles * self.few_keys, self.many_keys), there)
        at_once = multiprocessors(device) * (2 if many else self.few_at_once)
        return fewest_splits(programs, tiles, at_once)


DECODE_PARTS = (
${decode_parts})


@lru_cache(maxsize=256)
def fewest_splits(programs: int, tiles: int, at_once: int) -> int:
    """The fewest splits of so many key tiles with about the fewest turns: tiles one after the other, round by round."""
    sizes = range(1, min(tiles, MOST_SPLITS) + 1)
    turns = [-(-programs * splits // at_once) * -(-tiles // splits) for splits in sizes]
    return next(splits for splits, each in zip(sizes, turns, strict=True) if each <= SPLIT_PRICE * min(turns))


def multiprocessors(device: torch.device) -> int:
    """The multiprocessors of a device; a few where Triton interprets."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 8


def launch_cached(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None, page_table: Tensor | None, scale: float, q_start: int
) -> tuple[Tensor, Tensor]:
    """Attention over a cache: every split of every part to its own place, then one merge in a fixed order.

    Nothing here depends on a number that is on the device: a captured graph may be replayed with other lengths and
    other pages.
    """
    q, k, v = (each if each.stride(3) == 1 else each.contiguous() for each in (q, k, v))
    batch, heads, q_len, head_dim = q.shape
    group, rows = heads // k.shape[1], batch * heads * q_len
    page_size = 0 if page_table is None else k.shape[2]
    capacity = k.shape[2] if page_table is None else page_table.shape[1] * page_size
    grids = []
    for part in DECODE_PARTS:
        many = q_len > FEW_QUERIES * part.step
        share = 1 if many else part.heads_together(heads, group)
        row_tiles = (tiles_in(0, q_len, part.step) + part.block_m - 2) // part.block_m + 1
        programs = batch * heads // share * (part.classes * row_tiles if many else q_len)
        own = part.splits(programs, capacity, many, q.device)
        grids.append((part, many, row_tiles if many else share, programs, own))
    splits = sum(each[-1] for each in grids)
    split_out = torch.empty((splits, *q.shape), dtype=q.dtype if splits == 1 else torch.float32, device=q.device)
    split_lse = torch.empty((splits, *q.shape[:3]), dtype=torch.float32, device=q.device)
    if any(each[1] for each in grids):
        # Many queries leave out rows before position 0, and those of classes without pairs.
        split_out.zero_()
        split_lse.fill_(float("-inf"))
    width, first = next_power_of_2(head_dim), 0
    for part, many, size, programs, own in grids:
        # A table that is made for a cache serves it until it has doubled.
        ranks = next_power_of_2(tiles_in(0, max(capacity, q_start + q_len), part.step))
        stages = 2 if many else part.few_stages
        sizes = {} if many else {"ROWS": max(16, next_power_of_2(size))}
        (part.many if many else part.few)[(programs * own,)](
            *part.arrays(ranks, q.device),
            q,
            k,
            v,
            split_out[first:],
            split_lse[first:],
            lengths,
            page_table,
            scale * LOG2_E,
            q_len,
            capacity,
            q_start,
            k.shape[0],
            heads,
            group,
            own,
            rows,
            0 if page_table is None else page_table.stride(0),
            *q.stride()[:3],
            *k.stride()[:3],
            *v.stride()[:3],
            size,
            **sizes,
            PAGE_SIZE=page_size,
            head_dim=head_dim,
            D=width,
            PRECISION=precision(q),
            num_warps=part.many_warps if many else part.few_warps,
            # A page's number is fetched as many turns before its keys as these are before their use.
            num_stages=stages if page_size == 0 else 2 * stages - 1,
        )
        first += own
    if splits == 1:
        return split_out[0], split_lse[0]
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
    combine_kernel[(rows,)](split_out, split_lse, out, lse, splits, rows, head_dim=head_dim, D=width)
    return out, lse
'''

TABLE = '''

@lru_cache(maxsize=16)
def cache_table(block_m: int, block_n: int, ranks: int, device: torch.device) -> tuple[Tensor, Tensor, int]:
    """The live tiles by query tile of a cache, (starts, tiles, query tiles)."""
    length = max(ranks, block_m, block_n)
    starts, tiles, _, _ = tile_tables(block_m, block_n, 0, length, length, device)
    return starts, tiles, tiles_in(0, length, block_m)
'''
