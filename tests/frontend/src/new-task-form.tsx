import { useState, type SubmitEvent } from "react";
import { loadDraft, saveDraft } from "./draft";
import { ProblemText } from "./problem-text";
import type { Problem } from "./use-tasks";

type Props = {
  /** The user's ID. The draft belongs to this user. */
  user: string;
  /** Resolves to a problem, or to undefined on success. */
  onAdd: (title: string, key: string) => Promise<Problem | undefined>;
  onReload: () => void;
};

/** Does not limit the title's length: the service counts characters, browsers count UTF-16 code units. */
export function NewTaskForm({ user, onAdd, onReload }: Props) {
  const [draft] = useState(() => loadDraft(user));
  const [title, setTitle] = useState(draft?.title ?? "");
  const [key, setKey] = useState(() => draft?.key ?? crypto.randomUUID());
  const [restored, setRestored] = useState(draft !== undefined);
  const [problem, setProblem] = useState<Problem>();
  const [adding, setAdding] = useState(false);

  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    if (adding) {
      return;
    }
    setAdding(true);
    const newProblem = await onAdd(title, key);
    setProblem(newProblem);
    if (!newProblem) {
      change("");
    }
    setAdding(false);
  };

  const change = (newTitle: string) => {
    // Another text is another request.
    const newKey = crypto.randomUUID();
    setTitle(newTitle);
    setKey(newKey);
    setRestored(false);
    saveDraft(user, newTitle, newKey);
  };

  const reload = () => {
    setProblem(undefined);
    onReload();
  };

  return (
    <form onSubmit={(event) => void submit(event)} noValidate>
      <label htmlFor="new-task">New task</label>
      <div className="row new-task">
        <input
          id="new-task"
          autoComplete="off"
          dir="auto"
          value={title}
          aria-invalid={problem !== undefined}
          aria-describedby="new-task-problem"
          onChange={(event) => change(event.target.value)}
        />
        <button type="submit" aria-disabled={adding}>
          Add task
        </button>
      </div>
      <p role="status" className="status">
        {restored &&
          (draft?.interrupted
            ? "Your sign-in had expired, so the task was not added. What you typed is restored."
            : "What you typed is restored. The task is not added yet.")}
      </p>
      <div role="alert" id="new-task-problem">
        {problem?.message && <ProblemText problem={problem} onReload={reload} />}
      </div>
    </form>
  );
}
