import { MsalProvider } from "@azure/msal-react";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./app";
import { initialize, msal } from "./auth";
import { MissingSettings } from "./notices";
import { missingSettings } from "./settings";
import "./styles.css";

const element = document.getElementById("root");
if (!element) {
  throw new Error("index.html has no #root");
}
const root = createRoot(element);

if (missingSettings.length > 0) {
  root.render(<MissingSettings names={missingSettings} />);
} else {
  // Runs before the first render: the result of a redirect decides which page is shown.
  const problem = await initialize();
  root.render(
    <StrictMode>
      <MsalProvider instance={msal}>
        <App problem={problem} />
      </MsalProvider>
    </StrictMode>,
  );
}
