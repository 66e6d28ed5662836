"""Finding things in feature files: the nearest videos or moments of a query, and videos that are there twice."""

from featx.neighbours.index import THRESHOLD, Index, find_duplicates, search
from featx.neighbours.records import Answer, Duplicates, Hit, Moment, Pair, SearchResult

__all__ = [
    "THRESHOLD",
    "Answer",
    "Duplicates",
    "Hit",
    "Index",
    "Moment",
    "Pair",
    "SearchResult",
    "find_duplicates",
    "search",
]
