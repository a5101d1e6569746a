import { memo, useEffect, useId, useRef, useState, type KeyboardEvent, type SubmitEvent } from "react";
import type { Task } from "./client";
import type { Permissions } from "./permissions";

type Props = {
  task: Task;
  permissions: Permissions;
  onComplete: (task: Task, completed: boolean) => Promise<void>;
  /** Resolves to an error message, or to undefined on success. */
  onRename: (task: Task, title: string) => Promise<string | undefined>;
  onDelete: (task: Task) => void;
};

/** One task in the list, with the controls that the user's permissions allow. Only rendered again if a prop changes. */
export const TaskItem = memo(function TaskItem({ task, permissions, onComplete, onRename, onDelete }: Props) {
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
    // One update at a time: two responses could arrive out of order.
    if (completing.current) {
      return;
    }
    completing.current = true;
    await onComplete(task, completed);
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
      {permissions.Edit ? (
        <input
          type="checkbox"
          id={checkbox}
          checked={task.completed}
          onChange={(event) => void complete(event.target.checked)}
        />
      ) : (
        <span className="state">{task.completed ? "Done" : "Open"}</span>
      )}
      {permissions.Edit ? (
        <label className="title" htmlFor={checkbox} dir="auto">
          {task.title}
        </label>
      ) : (
        <span className="title" dir="auto">
          {task.title}
        </span>
      )}
      {permissions["View All in Org"] && (
        <span className="owner">
          Owner: <bdi>{task.owner_name}</bdi>
        </span>
      )}
      <div className="controls">
        {permissions.Edit && (
          <button
            type="button"
            className="quiet"
            ref={renameButton}
            aria-label={`Rename ${task.title}`}
            onClick={() => setRenaming(true)}
          >
            Rename
          </button>
        )}
        {permissions.Delete && (
          <button
            type="button"
            className="quiet danger"
            aria-label={`Delete ${task.title}`}
            onClick={() => onDelete(task)}
          >
            Delete
          </button>
        )}
      </div>
    </li>
  );
});

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
    const message = title === task.title ? undefined : await onRename(task, title);
    setSaving(false);
    setProblem(message);
    if (message === undefined) {
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
