import type { Problem } from "./use-tasks";

/** A problem in the task list, with the button that may solve it. */
export function ProblemText({ problem, onReload }: { problem: Problem; onReload: () => void }) {
  return (
    <div className="problem">
      <p>{problem.message}</p>
      {problem.action && (
        <button type="button" className="secondary" onClick={onReload}>
          {problem.action}
        </button>
      )}
    </div>
  );
}
