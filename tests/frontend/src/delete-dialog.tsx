import { useEffect, useRef, useState } from "react";
import type { Task } from "./client";

type Props = {
  task: Task;
  /** Resolves to whether it is gone. */
  onDelete: () => Promise<boolean>;
  onClose: (deleted: boolean) => void;
};

/** Asks before deleting. The browser's own dialog keeps the focus in, closes on Escape and gives the focus back. */
export function DeleteDialog({ task, onDelete, onClose }: Props) {
  const dialog = useRef<HTMLDialogElement>(null);
  const deleted = useRef(false);
  const [deleting, setDeleting] = useState(false);

  useEffect(() => {
    // Twice in development, and a dialog that is open cannot be opened.
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
        {/* First, so that it has the focus: Enter by mistake deletes nothing. */}
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
