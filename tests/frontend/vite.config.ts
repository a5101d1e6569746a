import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// Entra sends people back to exactly the registered address: another port would fail them there.
const registered = { host: "localhost", port: 3000, strictPort: true };

export default defineConfig({
  plugins: [react()],
  server: registered,
  preview: registered,
  // MSAL is most of the script and needed before the first page: splitting it would save nothing.
  build: { chunkSizeWarningLimit: 600 },
});
