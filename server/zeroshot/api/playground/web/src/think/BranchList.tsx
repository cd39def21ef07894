import { visible } from "../ui/format";
import { branchOf, childrenOf, summarize, textOf, type Branch, type Tree } from "./tree";

/** The texts that grew out of this one, nested as they branched. */
export function BranchList({ tree, onChoose }: { tree: Tree; onChoose: (id: number) => void }) {
  if (tree.branches.length < 2) return null;
  return (
    <section class="branches" aria-labelledby="branches-title">
      <h2 id="branches-title">Branches</h2>
      <ul class="branch-tree">
        <Node tree={tree} branch={branchOf(tree, 0)} onChoose={onChoose} />
      </ul>
    </section>
  );
}

function Node({ tree, branch, onChoose }: { tree: Tree; branch: Branch; onChoose: (id: number) => void }) {
  const children = childrenOf(tree, branch.id);
  const isCurrent = branch.id === tree.current;
  const { perplexity } = summarize(textOf(tree, branch.id));
  return (
    <li>
      <button type="button" class="branch" aria-current={isCurrent ? "true" : undefined} onClick={() => onChoose(branch.id)}>
        {branch.parent === null ? (
          <span class="branch-text">{branch.tokens.map(({ token }) => token).join("")}</span>
        ) : (
          <>
            <span class="branch-swap">
              <s>{visible(textOf(tree, branch.parent)[branch.forkAt]?.token ?? "")}</s> <b>{visible(branch.tokens[0]?.token ?? "")}</b>
            </span>
            <span class="branch-text">{branch.tokens.slice(1).map(({ token }) => token).join("")}</span>
          </>
        )}
        {perplexity !== null && <span class="branch-number" title="Perplexity of the whole text">{perplexity.toFixed(1)}</span>}
      </button>
      {children.length > 0 && (
        <ul>
          {children.map((child) => (
            <Node key={child.id} tree={tree} branch={child} onChoose={onChoose} />
          ))}
        </ul>
      )}
    </li>
  );
}
