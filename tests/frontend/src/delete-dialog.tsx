import { useEffect, useRef, useState } from "react";
import type { Task } from "./client";

type Props = {
  task: Task;
  /** Resolves to true if the task was deleted. */
  onDelete: () => Promise<boolean>;
  onClose: (deleted: boolean) => void;
};

/** Asks for confirmation. The native dialog traps the focus, closes on Escape and restores the focus. */
export function DeleteDialog({ task, onDelete, onClose }: Props) {
  const dialog = useRef<HTMLDialogElement>(null);
  const deleted = useRef(false);
  const [deleting, setDeleting] = useState(false);

  useEffect(() => {
    // React runs effects twice in development, and `showModal` throws on an open dialog.
    if (!dialog.current?.open) {
      dialog.current?.showModal();
    }
  }, []);

  const confirm = async () => {
    setDeleting(true);
    deleted.current = await onDelete();
    dialog.current?.close();
  };

  return (
    <dialog ref={dialog} aria-labelledby="delete-question" onClose={() => onClose(deleted.current)}>
      <h2 id="delete-question">Delete this task?</h2>
      <p className="title" dir="auto">
        {task.title}
      </p>
      <p>This cannot be undone.</p>
      <div className="actions">
        {/* First, so that it gets the focus: pressing Enter by mistake deletes nothing. */}
        <button type="button" className="secondary" onClick={() => dialog.current?.close()}>
          Cancel
        </button>
        <button type="button" className="danger" aria-disabled={deleting} onClick={() => deleting || void confirm()}>
          Delete task
        </button>
      </div>
    </dialog>
  );
}
