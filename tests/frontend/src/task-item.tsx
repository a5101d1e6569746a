import { useEffect, useId, useRef, useState, type KeyboardEvent, type SubmitEvent } from "react";
import type { Task } from "./client";
import type { Permissions } from "./permissions";

type Props = {
  task: Task;
  may: Permissions;
  onComplete: (completed: boolean) => Promise<void>;
  /** Resolves to what went wrong, or to nothing. */
  onRename: (title: string) => Promise<string | undefined>;
  onDelete: () => void;
};

/** One task of the list, with the controls the person's permissions give. */
export function TaskItem({ task, may, onComplete, onRename, onDelete }: Props) {
  const [renaming, setRenaming] = useState(false);
  const renameButton = useRef<HTMLButtonElement>(null);
  const wasRenaming = useRef(false);
  const completing = useRef(false);
  const checkbox = useId();

  useEffect(() => {
    if (wasRenaming.current && !renaming) {
      renameButton.current?.focus();
    }
    wasRenaming.current = renaming;
  }, [renaming]);

  const complete = async (completed: boolean) => {
    // One at a time: two answers could arrive in the other order.
    if (completing.current) {
      return;
    }
    completing.current = true;
    await onComplete(completed);
    completing.current = false;
  };

  if (renaming) {
    return (
      <li className="task">
        <RenameForm task={task} onRename={onRename} onClose={() => setRenaming(false)} />
      </li>
    );
  }
  return (
    <li className={task.completed ? "task completed" : "task"}>
      {may.Edit ? (
        <input
          type="checkbox"
          id={checkbox}
          checked={task.completed}
          onChange={(event) => void complete(event.target.checked)}
        />
      ) : (
        <span className="state">{task.completed ? "Done" : "Open"}</span>
      )}
      <div className="what">
        {may.Edit ? (
          <label className="title" htmlFor={checkbox} dir="auto">
            {task.title}
          </label>
        ) : (
          <span className="title" dir="auto">
            {task.title}
          </span>
        )}
        {may["View All in Org"] && (
          <span className="owner">
            Owner: <bdi>{task.owner_name}</bdi>
          </span>
        )}
      </div>
      <div className="controls">
        {may.Edit && (
          <button
            type="button"
            className="secondary small"
            ref={renameButton}
            aria-label={`Rename ${task.title}`}
            onClick={() => setRenaming(true)}
          >
            Rename
          </button>
        )}
        {may.Delete && (
          <button type="button" className="danger small" aria-label={`Delete ${task.title}`} onClick={onDelete}>
            Delete
          </button>
        )}
      </div>
    </li>
  );
}

type RenameFormProps = Pick<Props, "task" | "onRename"> & { onClose: () => void };

function RenameForm({ task, onRename, onClose }: RenameFormProps) {
  const [title, setTitle] = useState(task.title);
  const [problem, setProblem] = useState<string>();
  const [saving, setSaving] = useState(false);
  const input = useRef<HTMLInputElement>(null);
  const id = useId();

  useEffect(() => input.current?.select(), []);

  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    if (saving) {
      return;
    }
    setSaving(true);
    const found = title === task.title ? undefined : await onRename(title);
    setSaving(false);
    setProblem(found);
    if (found === undefined) {
      onClose();
    }
  };

  const cancelOnEscape = (event: KeyboardEvent) => {
    if (event.key === "Escape") {
      onClose();
    }
  };

  return (
    <form className="rename" onSubmit={(event) => void submit(event)} onKeyDown={cancelOnEscape} noValidate>
      <label htmlFor={id}>New title</label>
      <div className="row">
        <input
          id={id}
          ref={input}
          autoComplete="off"
          dir="auto"
          value={title}
          aria-invalid={problem !== undefined}
          aria-describedby={`${id}-problem`}
          onChange={(event) => setTitle(event.target.value)}
        />
        <button type="submit" aria-disabled={saving}>
          Save
        </button>
        <button type="button" className="secondary" onClick={onClose}>
          Cancel
        </button>
      </div>
      <div role="alert" id={`${id}-problem`}>
        {problem && <p className="problem">{problem}</p>}
      </div>
    </form>
  );
}
