/** A text and its alternatives, as a tree: each branch leaves its parent's text at one token. */

import type { Alternative, ScoredToken } from "../api/generate";

export interface Branch {
  id: number;
  parent: number | null;
  /** How many tokens of the parent's whole text it keeps. */
  forkAt: number;
  /** Its own tokens, from the fork on. The first is the alternative that was chosen. */
  tokens: ScoredToken[];
}

export interface Tree {
  branches: Branch[];
  current: number;
}

export function newTree(tokens: ScoredToken[]): Tree {
  return { branches: [{ id: 0, parent: null, forkAt: 0, tokens }], current: 0 };
}

export function branchOf(tree: Tree, id: number): Branch {
  const branch = tree.branches[id];
  if (!branch) throw new RangeError(`no branch ${id}`);
  return branch;
}

/** All tokens of a branch's text, those it shares with its ancestors first. */
export function textOf(tree: Tree, id: number): ScoredToken[] {
  const branch = branchOf(tree, id);
  if (branch.parent === null) return branch.tokens;
  return [...textOf(tree, branch.parent).slice(0, branch.forkAt), ...branch.tokens];
}

/** A new branch that puts `alternative` in the place of the current text's token `position`. */
export function fork(tree: Tree, position: number, alternative: Alternative): Tree {
  const instead = textOf(tree, tree.current)[position];
  if (!instead) throw new RangeError(`no token ${position}`);
  const rank = instead.top.findIndex(({ token_id }) => token_id === alternative.token_id) + 1;
  const token: ScoredToken = { ...alternative, rank: rank || null, top: instead.top };
  const owner = ownerOf(tree, tree.current, position);
  const branch = { id: tree.branches.length, parent: owner, forkAt: position, tokens: [token] };
  return { branches: [...tree.branches, branch], current: branch.id };
}

/**
 * The branch in the line of `id` that a fork at `position` leaves: in shared text that is its owner, and another choice
 * in the place of a branch's first token is that branch's sibling.
 */
function ownerOf(tree: Tree, id: number, position: number): number {
  const branch = branchOf(tree, id);
  return branch.parent !== null && position <= branch.forkAt ? ownerOf(tree, branch.parent, position) : id;
}

export function append(tree: Tree, id: number, tokens: ScoredToken[]): Tree {
  const branches = tree.branches.map((branch) =>
    branch.id === id ? { ...branch, tokens: [...branch.tokens, ...tokens] } : branch,
  );
  return { ...tree, branches };
}

export const childrenOf = (tree: Tree, id: number): Branch[] =>
  tree.branches.filter((branch) => branch.parent === id);

export interface Summary {
  numScored: number;
  perplexity: number | null;
  bitsPerToken: number | null;
  /** Share of tokens that were the model's first choice. */
  firstChoice: number | null;
}

export function summarize(tokens: ScoredToken[]): Summary {
  const scored = tokens.filter((token) => token.logprob !== null);
  if (!scored.length) return { numScored: 0, perplexity: null, bitsPerToken: null, firstChoice: null };
  const mean = scored.reduce((sum, token) => sum + token.logprob!, 0) / scored.length;
  return {
    numScored: scored.length,
    perplexity: Math.exp(-mean),
    bitsPerToken: -mean / Math.LN2,
    firstChoice: scored.filter((token) => token.rank === 1).length / scored.length,
  };
}

const MOST_SURPRISING_NATS = 12;

/** 0 for a token the model was sure of, 1 for one it found all but impossible. */
export function surprise(logprob: number | null): number {
  return logprob === null ? 0 : Math.min(1, Math.max(0, -logprob / MOST_SURPRISING_NATS));
}
