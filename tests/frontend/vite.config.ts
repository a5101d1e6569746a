import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// Entra only redirects to the registered redirect URI, so the port must not change.
const redirectOrigin = { host: "localhost", port: 3000, strictPort: true };

export default defineConfig({
  plugins: [react()],
  server: redirectOrigin,
  preview: redirectOrigin,
  // MSAL is most of the bundle and the first page needs it, so code splitting would not help.
  build: { chunkSizeWarningLimit: 600 },
});
